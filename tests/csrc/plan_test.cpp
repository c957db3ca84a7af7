// Plans (plan.h) against loops that do nothing but follow the definitions, in double precision, for many sizes, every
// instruction set of the machine and several numbers of threads, from several threads at once. tests/ops/test_plan.py
// builds it with sanitizers. Exits with 1 and says what differs. Its argument, if any: the best instruction set alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "plan.h"
#include "thread_pool.h"
#include "tiles.h"

using namespace ghostnet;

namespace {

typedef std::vector<double> Doubles;

int failures = 0;

// A map as the definitions have it: (channels, height, width), with as many channels as lanes.
struct Map {
  int64_t channels = 0, height = 0, width = 0;
  Doubles values;

  Map() = default;
  Map(int64_t c, int64_t h, int64_t w) : channels(c), height(h), width(w), values(c * h * w, 0.0) {}
  double& at(int64_t c, int64_t y, int64_t x) { return values[(c * height + y) * width + x]; }
  double inside(int64_t c, int64_t y, int64_t x) const {
    return y < 0 || y >= height || x < 0 || x >= width ? 0.0 : values[(c * height + y) * width + x];
  }
};

double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::kRelu: return x < 0 ? 0 : x;
    case Activation::kHardSigmoid: return std::min(std::max(x + 3, 0.0), 6.0) / 6;
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

struct Kernel {
  int64_t height = 1, width = 1, stride = 1, pad_height = 0, pad_width = 0;
};

// Writes a program, and does what it says.
class Network {
 public:
  // `parts`: random numbers are multiples of 1 / parts; 0: any.
  Network(int64_t in_channels, unsigned seed, int parts = 0)
      : generator_(seed), in_channels_(in_channels), parts_(parts) {
    blocks_.push_back(0);
  }

  int64_t map(int64_t blocks) {
    blocks_.push_back(blocks);
    return static_cast<int64_t>(blocks_.size()) - 1;
  }

  void add(Kind kind, Span in, Span out, int64_t blocks, Kernel kernel = {}, Activation activation = Activation::kNone,
           Span other = {-1, 0}, std::vector<int64_t> inputs = {}) {
    PlanLayer layer{kind,          in,           out,
                    blocks,        kernel.height, kernel.width,
                    kernel.stride, kernel.pad_height, kernel.pad_width,
                    activation,    other,        {},
                    {},            inputs};
    const int64_t lanes = blocks * kLanes, taps = kernel.height * kernel.width;
    if (kind == Kind::kDense) layer.weights = random(lanes * static_cast<int64_t>(inputs.size()) * taps);
    if (kind == Kind::kDepthwise) layer.weights = random(lanes * taps);
    if (!layer.weights.empty()) layer.bias = random(lanes);
    layers_.push_back(layer);
  }

  // The last layer gives its inputs as they are.
  void select() {
    PlanLayer& layer = layers_.back();
    const int64_t inputs = layer.inputs.size();
    std::fill(layer.weights.begin(), layer.weights.end(), 0.0f);
    std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
    for (int64_t i = 0; i < inputs; ++i) layer.weights[i * inputs + i] = 1.0f;
  }

  std::vector<int64_t> program(int64_t outputs) const {
    std::vector<int64_t> numbers{static_cast<int64_t>(blocks_.size()), static_cast<int64_t>(layers_.size()), outputs};
    numbers.insert(numbers.end(), blocks_.begin(), blocks_.end());
    for (const PlanLayer& l : layers_) {
      const int64_t fields[] = {static_cast<int64_t>(l.kind), l.in.map, l.in.first, l.out.map, l.out.first, l.blocks,
                                l.kernel_height, l.kernel_width, l.stride, l.pad_height, l.pad_width,
                                static_cast<int64_t>(l.activation), l.other.map, l.other.first,
                                static_cast<int64_t>(l.weights.size()), static_cast<int64_t>(l.bias.size()),
                                static_cast<int64_t>(l.inputs.size())};
      numbers.insert(numbers.end(), std::begin(fields), std::end(fields));
      numbers.insert(numbers.end(), l.inputs.begin(), l.inputs.end());
    }
    return numbers;
  }

  std::vector<float> weights() const {
    std::vector<float> all;
    for (const PlanLayer& l : layers_) {
      all.insert(all.end(), l.weights.begin(), l.weights.end());
      all.insert(all.end(), l.bias.begin(), l.bias.end());
    }
    return all;
  }

  // The first channels of the last map.
  Doubles expected(const float* image, int64_t height, int64_t width, int64_t outputs) const {
    std::vector<Map> maps(blocks_.size());
    maps[0] = Map(in_channels_, height, width);
    std::copy_n(image, maps[0].values.size(), maps[0].values.begin());
    for (const PlanLayer& layer : layers_) compute(layer, &maps);
    const Map& last = maps.back();
    return Doubles(last.values.begin(), last.values.begin() + outputs * last.height * last.width);
  }

  std::vector<float> random(int64_t size) {
    std::uniform_real_distribution<float> uniform(-0.5, 0.5);
    std::vector<float> values(size);
    for (float& value : values) value = uniform(generator_);
    if (parts_ > 0) {
      for (float& value : values) value = std::round(value * static_cast<float>(parts_)) / static_cast<float>(parts_);
    }
    return values;
  }

 private:
  void compute(const PlanLayer& l, std::vector<Map>* maps) const {
    const Map in = (*maps)[l.in.map];
    Map& out = (*maps)[l.out.map];
    int64_t height = in.height, width = in.width, window_height = 1, window_width = 1;
    const bool plain = l.kind == Kind::kPad && blocks_[l.out.map] == 0;
    const int64_t planes = plain ? in.channels : l.blocks * kLanes;
    if (l.kind == Kind::kPad) {
      height += 2 * l.pad_height;
      width += 2 * l.pad_width;
    } else if (l.kind == Kind::kMeans) {
      height = width = 1;
      window_height = in.height;
      window_width = in.width;
    } else if (l.kind == Kind::kPool) {
      window_height = std::min(l.kernel_height, in.height);
      window_width = std::min(l.kernel_width, in.width);
      height = in.height / window_height;
      width = in.width / window_width;
    } else if (l.kind == Kind::kEnlarge) {
      const Map& most = (*maps)[l.other.map];
      height = std::min(in.height * l.kernel_height, most.height);
      width = std::min(in.width * l.kernel_width, most.width);
    } else {
      height = (in.height + 2 * l.pad_height - l.kernel_height) / l.stride + 1;
      width = (in.width + 2 * l.pad_width - l.kernel_width) / l.stride + 1;
    }
    if (out.values.empty()) out = Map(plain ? in.channels : blocks_[l.out.map] * kLanes, height, width);
    for (int64_t lane = 0; lane < planes; ++lane) {
      const int64_t from = l.in.first * kLanes + lane, to = l.out.first * kLanes + lane;
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          double sum = l.bias.empty() ? 0.0 : l.bias[lane];
          const double other = l.other.map < 0 ? 0.0 : other_of((*maps)[l.other.map], l, lane, y, x, height, width);
          if (l.kind == Kind::kPad) {
            sum = in.inside(from, y - l.pad_height, x - l.pad_width);
          } else if (l.kind == Kind::kMeans || l.kind == Kind::kPool) {
            for (int64_t i = 0; i < window_height; ++i) {
              for (int64_t j = 0; j < window_width; ++j) {
                sum += in.inside(from, y * window_height + i, x * window_width + j) / (window_height * window_width);
              }
            }
          } else if (l.kind == Kind::kMaxPool) {
            sum = largest(l, in, from, y, x);
          } else if (l.kind == Kind::kEnlarge) {
            sum = between(l, in, from, y, x);
          } else if (l.kind == Kind::kGate || l.kind == Kind::kWeigh) {
            sum = in.inside(from, y, x) * other;
          } else if (l.kind == Kind::kAdd || l.kind == Kind::kShift) {
            sum = in.inside(from, y, x) + other;
          } else {
            sum += products(l, in, lane, y, x) + other;
          }
          out.at(to, y, x) = activated(sum, l.activation);
        }
      }
    }
  }

  static double other_of(const Map& map, const PlanLayer& l, int64_t lane, int64_t y, int64_t x, int64_t height,
                         int64_t width) {
    return map.inside(l.other.first * kLanes + lane, y * map.height / height, x * map.width / width);
  }

  // Bilinear: pixel centres are at halves, and what is beyond the last centre has its value.
  static double between(const PlanLayer& l, const Map& in, int64_t channel, int64_t y, int64_t x) {
    const auto place = [](int64_t out, int64_t factor, int64_t size) {
      const double centre = (static_cast<double>(out) + 0.5) / static_cast<double>(factor) - 0.5;
      return std::min(std::max(centre, 0.0), static_cast<double>(size - 1));
    };
    const double row = place(y, l.kernel_height, in.height), column = place(x, l.kernel_width, in.width);
    double sum = 0;
    for (int64_t i = 0; i < in.height; ++i) {
      for (int64_t j = 0; j < in.width; ++j) {
        const double high = std::max(0.0, 1 - std::abs(row - i)), wide = std::max(0.0, 1 - std::abs(column - j));
        sum += high * wide * in.inside(channel, i, j);
      }
    }
    return sum;
  }

  static double largest(const PlanLayer& l, const Map& in, int64_t channel, int64_t y, int64_t x) {
    double most = -HUGE_VAL;
    for (int64_t i = y * l.stride - l.pad_height; i < y * l.stride - l.pad_height + l.kernel_height; ++i) {
      for (int64_t j = x * l.stride - l.pad_width; j < x * l.stride - l.pad_width + l.kernel_width; ++j) {
        if (i >= 0 && i < in.height && j >= 0 && j < in.width) most = std::max(most, in.inside(channel, i, j));
      }
    }
    return most;
  }

  static double products(const PlanLayer& l, const Map& in, int64_t lane, int64_t y, int64_t x) {
    double sum = 0;
    const bool dense = l.kind == Kind::kDense;
    const int64_t inputs = dense ? l.inputs.size() : 1;
    for (int64_t i = 0; i < inputs; ++i) {
      const int64_t channel = l.in.first * kLanes + (dense ? l.inputs[i] : lane);
      for (int64_t j = 0; j < l.kernel_height; ++j) {
        for (int64_t k = 0; k < l.kernel_width; ++k) {
          sum += static_cast<double>(l.weights[((lane * inputs + i) * l.kernel_height + j) * l.kernel_width + k]) *
                 in.inside(channel, y * l.stride + j - l.pad_height, x * l.stride + k - l.pad_width);
        }
      }
    }
    return sum;
  }

  std::mt19937 generator_;
  const int64_t in_channels_;
  const int parts_;
  std::vector<int64_t> blocks_;
  std::vector<PlanLayer> layers_;
};

std::vector<int64_t> first_lanes(int64_t count) {
  std::vector<int64_t> lanes(count);
  for (int64_t i = 0; i < count; ++i) lanes[i] = i;
  return lanes;
}

// All kinds of layers; `kernel` is that of a depthwise one. `cut`: up to a map of several pixels, of which a copy is the last.
Network sample(int64_t in_channels, int64_t blocks, Kernel kernel, unsigned seed, bool cut = false) {
  Network n(in_channels, seed);
  const auto dense = [&](int64_t from, int64_t to_blocks, int64_t inputs, Activation activation = Activation::kNone) {
    const int64_t to = n.map(to_blocks);
    n.add(Kind::kDense, {from, 0}, {to, 0}, to_blocks, {}, activation, {-1, 0}, first_lanes(inputs));
    return to;
  };
  const int64_t padded = n.map(0);
  n.add(Kind::kPad, {0, 0}, {padded, 0}, 0, {1, 1, 1, 1, 1});
  const int64_t stem = n.map(2);
  n.add(Kind::kDense, {padded, 0}, {stem, 0}, 2, {3, 3, 2}, Activation::kRelu, {-1, 0}, first_lanes(in_channels));
  // A Ghost module: both halves in one map, then what is added to the first.
  const int64_t joined = n.map(2 * blocks), other = dense(stem, 2 * blocks, 13);
  n.add(Kind::kDense, {stem, 0}, {joined, 0}, blocks, {}, Activation::kRelu, {-1, 0}, {0, 3, 8, 15});
  n.add(Kind::kDepthwise, {joined, 0}, {joined, blocks}, blocks, {3, 3, 1, 1, 1}, Activation::kNone, {other, blocks});
  n.add(Kind::kAdd, {joined, 0}, {joined, 0}, blocks, {}, Activation::kNone, {other, 0});
  // Attention at half the size, and a gate.
  const int64_t half = n.map(2 * blocks), rows = n.map(2 * blocks), columns = n.map(2 * blocks);
  n.add(Kind::kPool, {joined, 0}, {half, 0}, 2 * blocks, {2, 2, 2});
  n.add(Kind::kDepthwise, {half, 0}, {rows, 0}, 2 * blocks, {1, 5, 1, 0, 2});
  n.add(Kind::kDepthwise, {rows, 0}, {columns, 0}, 2 * blocks, {5, 1, 1, 2, 0}, Activation::kSigmoid);
  n.add(Kind::kWeigh, {joined, 0}, {joined, 0}, 2 * blocks, {}, Activation::kNone, {columns, 0});
  const int64_t strided = n.map(2 * blocks), means = n.map(2 * blocks);
  n.add(Kind::kDepthwise, {joined, 0}, {strided, 0}, 2 * blocks, kernel);
  n.add(Kind::kMeans, {strided, 0}, {means, 0}, 2 * blocks);
  const int64_t gates = dense(means, 2 * blocks, 8 * blocks, Activation::kHardSigmoid);
  n.add(Kind::kGate, {strided, 0}, {strided, 0}, 2 * blocks, {}, Activation::kNone, {gates, 0});
  n.add(Kind::kShift, {strided, 1}, {strided, 1}, 2 * blocks - 1, {}, Activation::kRelu, {means, 1});
  // A convolution of several pixels, with a map before it that has zeros around it.
  const int64_t around = n.map(2 * blocks), mixed = n.map(3);
  n.add(Kind::kPad, {strided, 0}, {around, 0}, 2 * blocks, {1, 1, 1, 1, 1});
  n.add(Kind::kDense, {around, 0}, {mixed, 0}, 3, {3, 3, 1}, Activation::kRelu, {-1, 0}, first_lanes(8 * blocks + 3));
  if (cut) {
    n.add(Kind::kPad, {mixed, 1}, {n.map(2), 0}, 2);
    return n;
  }
  const int64_t largest = n.map(3);
  n.add(Kind::kMaxPool, {mixed, 0}, {largest, 0}, 3, {3, 3, 2, 1, 1});
  const int64_t enlarged = n.map(3);
  n.add(Kind::kEnlarge, {largest, 0}, {enlarged, 0}, 3, {3, 3}, Activation::kNone, {mixed, 0});
  const int64_t wide = dense(enlarged, 6, 21, Activation::kRelu), all = n.map(6);
  n.add(Kind::kMeans, {wide, 0}, {all, 0}, 6);
  dense(all, 2, 48);
  return n;
}

// Exact in bfloat16: images, what is made of them, and weights.
Network coarse_sample(int64_t in_channels, int64_t blocks, unsigned seed) {
  Network n(in_channels, seed, 16);
  const int64_t in_blocks = (in_channels + kLanes - 1) / kLanes;
  const int64_t copied = n.map(0), same = n.map(in_blocks), all = n.map(blocks + 1);
  n.add(Kind::kPad, {0, 0}, {copied, 0}, 0);
  n.add(Kind::kDense, {copied, 0}, {same, 0}, in_blocks, {}, Activation::kNone, {-1, 0}, first_lanes(in_channels));
  n.select();
  n.add(Kind::kDense, {same, 0}, {all, 1}, blocks, {}, Activation::kRelu, {-1, 0}, first_lanes(in_channels - 3));
  n.add(Kind::kDense, {same, 0}, {all, 0}, 1, {}, Activation::kNone, {all, blocks}, {1, 2, 5});
  const int64_t means = n.map(blocks + 1);
  n.add(Kind::kMeans, {all, 0}, {means, 0}, blocks + 1);
  return n;
}

struct Images {
  int64_t count, channels, height, width;
  int64_t values() const { return channels * height * width; }
};

void check(const PlanKernels& kernels, const Tiles* tiles, const Network& network, const std::vector<float>& values,
           const Images& images, int64_t outputs, double tolerance) {
  const std::vector<int64_t> program = network.program(outputs);
  const std::vector<float> weights = network.weights();
  Plan plan(kernels, tiles, program.data(), weights.data());
  const int64_t values_of_one = outputs * plan.size(images.channels, images.height, images.width).pixels();
  const char* products = !tiles ? "float32" : tiles == &plain_tiles ? "bfloat16 by loops" : "bfloat16 by AMX";
  std::vector<float> first;
  for (int threads = 1; threads <= 3; ++threads) {
    set_threads(threads);
    std::vector<float> found(images.count * values_of_one, -7.0f);
    plan.run(values.data(), images.count, images.channels, images.height, images.width, found.data());
    if (first.empty()) first = found;
    if (found != first) {
      std::printf("%s, %s: other bits on %d threads\n", kernels.name, products, threads);
      ++failures;
    }
  }
  for (int64_t i = 0; i < images.count; ++i) {
    const Doubles expected = network.expected(values.data() + i * images.values(), images.height, images.width, outputs);
    for (int64_t c = 0; c < values_of_one; ++c) {
      const double error = std::abs(first[i * values_of_one + c] - expected[c]);
      if (!(error <= tolerance * (1 + std::abs(expected[c])))) {
        std::printf("%s, %s: %ld images of %ldx%ld: image %ld, value %ld: %g instead of %g\n", kernels.name, products,
                    static_cast<long>(images.count), static_cast<long>(images.height), static_cast<long>(images.width),
                    static_cast<long>(i), static_cast<long>(c), first[i * values_of_one + c], expected[c]);
        ++failures;
      }
    }
  }
}

// The loops that do what AMX does, and AMX where it is.
std::vector<const Tiles*> all_tiles() {
  std::vector<const Tiles*> all{&plain_tiles};
  if (amx_tiles()) all.push_back(amx_tiles());
  return all;
}

// Pixels are rounded as single values are, by loops, and nothing else is written.
void check_rounding(int64_t blocks, int64_t pixels, int64_t row) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  const int64_t plane = (pixels + 2) * kLanes, size = pixels * row;
  std::vector<float> x(blocks * plane);
  for (float& value : x) value = normal(generator);
  x[0] = std::nanf("");
  std::vector<uint16_t> expected(size + 1, 7);
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t c = 0; c < row; ++c) {
      expected[p * row + c] = 0;
      const float* from = x.data() + c / kLanes * plane + p * kLanes + c % kLanes;
      if (c < blocks * kLanes) plain_tiles.round(&expected[p * row + c], from, 1);
    }
  }
  for (const Tiles* tiles : all_tiles()) {
    std::vector<uint16_t> found(size + 1, 7);
    tiles->round_pixels(found.data(), row, x.data(), plane, blocks, pixels);
    if (found != expected) {
      std::printf("%ld blocks of %ld pixels are rounded otherwise\n", static_cast<long>(blocks), static_cast<long>(pixels));
      ++failures;
    }
  }
}

void check_coarse(const PlanKernels& kernels, int64_t in_channels, int64_t blocks, int64_t count, int64_t height,
                  int64_t width) {
  const Images images{count, in_channels, height, width};
  Network network = coarse_sample(in_channels, blocks, static_cast<unsigned>(in_channels));
  const std::vector<float> values = network.random(count * images.values());
  for (const Tiles* tiles : all_tiles()) check(kernels, tiles, network, values, images, (blocks + 1) * kLanes, 1e-5);
}

void check(const PlanKernels& kernels, int64_t blocks, Kernel kernel, int64_t count, int64_t height, int64_t width) {
  const Images images{count, 3, height, width};
  Network network = sample(3, blocks, kernel, static_cast<unsigned>(height * 100 + width));
  const std::vector<float> values = network.random(count * images.values());
  check(kernels, nullptr, network, values, images, 11, 1e-4);
  const Network cut = sample(3, blocks, kernel, static_cast<unsigned>(height * 100 + width), true);
  check(kernels, nullptr, cut, values, images, 13, 1e-4);
  for (const Tiles* tiles : all_tiles()) check(kernels, tiles, network, values, images, 11, 0.02);
}

// Two callers of one plan: one has the threads, the other works alone.
void check_callers(const PlanKernels& kernels) {
  Network network = sample(3, 2, {3, 3, 2, 1, 1}, 5);
  const std::vector<int64_t> program = network.program(11);
  const std::vector<float> weights = network.weights(), images = network.random(3 * 3 * 30 * 30);
  Plan plan(kernels, nullptr, program.data(), weights.data());
  set_threads(2);
  std::vector<float> expected(3 * 11);
  plan.run(images.data(), 3, 3, 30, 30, expected.data());
  std::vector<std::thread> callers;
  std::vector<std::vector<float>> found(4, std::vector<float>(3 * 11));
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      // One image alone is shared by the threads, layer by layer.
      for (int turn = 0; turn < 5; ++turn) {
        if (i % 2 == 0) plan.run(images.data(), 3, 3, 30, 30, found[i].data());
        for (int64_t k = 0; i % 2 == 1 && k < 3; ++k) {
          plan.run(images.data() + k * 3 * 30 * 30, 1, 3, 30, 30, found[i].data() + k * 11);
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<float>& one : found) {
    if (one != expected) {
      std::printf("%s: other bits for several callers\n", kernels.name);
      ++failures;
    }
  }
}

}  // namespace

int main(int count, char**) {
  std::vector<const PlanKernels*> sets = usable_plan_kernels();
  if (count > 1) sets.erase(sets.begin(), sets.end() - 1);
  check_rounding(1, 5, 32);
  check_rounding(5, 33, 64);
  check_rounding(8, 16, 64);
  for (const PlanKernels* kernels : sets) {
    check(*kernels, 1, {3, 3, 1, 1, 1}, 1, 33, 61);
    check(*kernels, 1, {3, 3, 2, 1, 1}, 5, 32, 18);
    check(*kernels, 2, {5, 5, 1, 2, 2}, 2, 17, 40);
    check(*kernels, 3, {5, 5, 2, 2, 2}, 3, 29, 29);
    check(*kernels, 2, {7, 3, 2, 3, 1}, 20, 9, 11);
    check(*kernels, 2, {3, 3, 1, 1, 1}, 4, 1, 1);
    check(*kernels, 5, {3, 3, 2, 1, 1}, 1, 2, 75);
    check_coarse(*kernels, 70, 5, 3, 9, 11);
    check_coarse(*kernels, 20, 9, 1, 31, 37);
    check_coarse(*kernels, 300, 2, 2, 1, 1);
    check_callers(*kernels);
  }
  std::printf("%zu instruction sets, %d failures\n", sets.size(), failures);
  return failures > 0;
}
