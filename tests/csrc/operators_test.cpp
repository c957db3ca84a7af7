// The C++ operators against loops that do nothing but follow the definitions, in double precision, for many shapes,
// every instruction set of the machine and several numbers of threads, from several threads at once. tests/ops/test_fused.py
// builds it with sanitizers. Exits with 1 and says what differs.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bfloat16.h"
#include "chain.h"
#include "convolution.h"
#include "dropout.h"
#include "max_pool.h"
#include "pixel_loss.h"
#include "shared_sum.h"
#include "squeeze_excite.h"
#include "thread_pool.h"
#include "tiles.h"
#include "updates.h"
#include "upsample.h"

using namespace ghostnet;

namespace {

typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;

struct Case {
  int64_t batch, channels, height, width, multiplier, kernel_height, kernel_width, stride, cut;
  bool first, convolution, second, relu1, relu2, residual;
};

Floats random_floats(int64_t size, std::mt19937& generator, float low = -1, float high = 1) {
  std::uniform_real_distribution<float> uniform(low, high);
  Floats values(size);
  for (float& value : values) value = uniform(generator);
  return values;
}

// Everything that a chain reads and writes. Buffers have exactly their size, so that a sanitizer sees any step beyond.
struct Data {
  Chain chain{};
  Floats x, weight, residual, out, d_out, d_x, d_weight;
  Floats norm[2][4], state[2][4], gradient[2][2];

  Data(const Case& c, unsigned seed) {
    std::mt19937 generator(seed);
    const int64_t ghosts = c.convolution ? c.channels * c.multiplier : 0;
    chain.batch = c.batch;
    chain.channels = c.channels;
    chain.multiplier = c.convolution ? c.multiplier : 0;
    chain.first = c.first;
    chain.convolution = c.convolution;
    chain.second = c.second;
    chain.out_channels = (c.first ? c.channels : 0) + ghosts - c.cut;
    chain.map = {c.height, c.width, 1, 1, 1, 0, 0};
    if (c.convolution) {
      chain.map = {c.height,         c.width,  c.kernel_height,     c.kernel_width,
                   c.stride, c.kernel_height / 2, c.kernel_width / 2};
    }
    const int64_t outputs = c.batch * chain.out_channels * chain.map.out_height() * chain.map.out_width();
    x = random_floats(c.batch * c.channels * c.height * c.width, generator);
    weight = random_floats(ghosts * c.kernel_height * c.kernel_width, generator);
    residual = random_floats(c.residual ? outputs : 0, generator);
    d_out = random_floats(outputs, generator);
    out.resize(outputs);
    d_x.resize(x.size());
    d_weight.resize(weight.size());
    chain.x = x.data();
    chain.weight = weight.data();
    chain.residual = c.residual ? residual.data() : nullptr;
    chain.out = out.data();
    chain.d_out = d_out.data();
    chain.d_x = d_x.data();
    chain.d_weight = d_weight.data();
    set_norm(&chain.norm1, 0, c.first ? c.channels : 0, c.relu1, generator);
    set_norm(&chain.norm2, 1, c.second ? ghosts : 0, c.relu2, generator);
  }

  void set_norm(Norm* to, int which, int64_t size, bool relu, std::mt19937& generator) {
    for (int i = 0; i < 4; ++i) norm[which][i] = random_floats(size, generator, i == 1 ? -1 : 0.5f, 1.5f);
    for (Floats& values : state[which]) values.resize(size);
    for (Floats& values : gradient[which]) values.resize(size);
    *to = {1e-5f,
           0.1f,
           relu,
           norm[which][0].data(),
           norm[which][1].data(),
           norm[which][2].data(),
           norm[which][3].data(),
           state[which][2].data(),
           state[which][3].data(),
           state[which][0].data(),
           state[which][1].data(),
           gradient[which][0].data(),
           gradient[which][1].data()};
  }

  std::vector<const Floats*> results() const {
    std::vector<const Floats*> all{&out, &d_x, &d_weight};
    for (int which = 0; which < 2; ++which) {
      for (const Floats& values : state[which]) all.push_back(&values);
      for (const Floats& values : gradient[which]) all.push_back(&values);
    }
    return all;
  }
};

// A batch norm by its definition: maps (batch, channels, size).
struct SlowNorm {
  Doubles mean, inverse, hat, d_gamma, d_beta;

  // With the batch's statistics, or with the running ones.
  Doubles forward(const Norm& norm, const Doubles& x, int64_t batch, int64_t channels, int64_t size, bool running) {
    mean.assign(channels, 0);
    inverse.assign(channels, 0);
    hat = x;
    Doubles y = x;
    for (int64_t c = 0; c < channels; ++c) {
      double square = 0;
      for (int64_t n = 0; n < batch; ++n) {
        for (int64_t i = 0; i < size; ++i) mean[c] += x[(n * channels + c) * size + i] / (batch * size);
      }
      for (int64_t n = 0; n < batch; ++n) {
        for (int64_t i = 0; i < size; ++i) square += std::pow(x[(n * channels + c) * size + i] - mean[c], 2);
      }
      if (running) mean[c] = norm.running_mean[c];
      inverse[c] = 1 / std::sqrt((running ? norm.running_variance[c] : square / (batch * size)) + norm.eps);
      for (int64_t n = 0; n < batch; ++n) {
        for (int64_t i = 0; i < size; ++i) {
          const int64_t at = (n * channels + c) * size + i;
          hat[at] = (x[at] - mean[c]) * inverse[c];
          y[at] = hat[at] * norm.gamma[c] + norm.beta[c];
          if (norm.relu && y[at] < 0) y[at] = 0;
        }
      }
    }
    return y;
  }

  Doubles backward(const Norm& norm, const Doubles& d_y, int64_t batch, int64_t channels, int64_t size) {
    Doubles d_x = d_y;
    d_gamma.assign(channels, 0);
    d_beta.assign(channels, 0);
    for (int64_t c = 0; c < channels; ++c) {
      for (int step = 0; step < 2; ++step) {
        for (int64_t n = 0; n < batch; ++n) {
          for (int64_t i = 0; i < size; ++i) {
            const int64_t at = (n * channels + c) * size + i;
            const bool stopped = norm.relu && hat[at] * norm.gamma[c] + norm.beta[c] <= 0;
            const double d = stopped ? 0 : d_y[at];
            if (step == 0) {
              d_beta[c] += d;
              d_gamma[c] += d * hat[at];
            } else {
              d_x[at] = norm.gamma[c] * inverse[c] * (d - (d_beta[c] + hat[at] * d_gamma[c]) / (batch * size));
            }
          }
        }
      }
    }
    return d_x;
  }
};

// Calls visit(input index, weight index, output index) for every product of the convolution.
template <typename Visit>
void each_product(const Chain& k, Visit visit) {
  const Geometry& g = k.map;
  const int64_t height = g.out_height(), width = g.out_width(), ghosts = k.channels * k.multiplier;
  for (int64_t n = 0; n < k.batch; ++n) {
    for (int64_t o = 0; o < ghosts; ++o) {
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          for (int64_t ky = 0; ky < g.kernel_height; ++ky) {
            for (int64_t kx = 0; kx < g.kernel_width; ++kx) {
              const int64_t row = y * g.stride + ky - g.pad_height, column = x * g.stride + kx - g.pad_width;
              if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
              visit(((n * k.channels + o / k.multiplier) * g.height + row) * g.width + column,
                    (o * g.kernel_height + ky) * g.kernel_width + kx, ((n * ghosts + o) * height + y) * width + x);
            }
          }
        }
      }
    }
  }
}

int failures = 0;

void compare(const char* what, const Floats& got, const Doubles& expected, double tolerance = 2e-5) {
  double largest = 1e-3, difference = 0;
  for (double value : expected) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < expected.size(); ++i) difference = std::max(difference, std::fabs(got[i] - expected[i]));
  if (got.size() != expected.size() || !(difference <= tolerance * std::max(largest, 1.0))) {
    std::printf("%s: off by %g of %g\n", what, difference, largest);
    ++failures;
  }
}

// Results on so many threads have the bits of those on one, which come first and are kept in `first`.
void compare_bits(const char* what, int threads, Floats* first, const Floats& found) {
  if (threads == 1) *first = found;
  if (std::memcmp(first->data(), found.data(), found.size() * sizeof(float)) != 0) {
    std::printf("%s: %d threads give other bits than one\n", what, threads);
    ++failures;
  }
}

// Which sizes it was that failed.
void name_sizes(const Kernels& kernels, int64_t batch, int64_t channels, const Geometry& map) {
  std::printf("... %s, batch %lld, %lld channels of %lld x %lld, kernel %lld x %lld, stride %lld\n", kernels.name,
              static_cast<long long>(batch), static_cast<long long>(channels), static_cast<long long>(map.height),
              static_cast<long long>(map.width), static_cast<long long>(map.kernel_height),
              static_cast<long long>(map.kernel_width), static_cast<long long>(map.stride));
}

// The chain by its definition, against what the operators left in `data`: of training, or of evaluation.
void check(const Data& data, bool evaluation) {
  const Chain& k = data.chain;
  const int64_t size = k.map.height * k.map.width, out_size = k.map.out_height() * k.map.out_width();
  const int64_t ghosts = k.channels * k.multiplier, start = k.first ? k.channels : 0;
  SlowNorm norm1, norm2;
  Doubles z(data.x.begin(), data.x.end()), result;
  if (k.first) z = norm1.forward(k.norm1, z, k.batch, k.channels, size, evaluation);
  Doubles d(k.batch * ghosts * out_size, 0.0);
  if (k.convolution) each_product(k, [&](int64_t i, int64_t w, int64_t o) { d[o] += z[i] * data.weight[w]; });
  Doubles y = k.second ? norm2.forward(k.norm2, d, k.batch, ghosts, out_size, evaluation) : d;
  Doubles d_z(z.size(), 0.0), d_y(d.size(), 0.0);
  for (int64_t n = 0; n < k.batch; ++n) {
    for (int64_t c = 0; c < k.out_channels; ++c) {
      const bool is_first = c < start;
      const int64_t from = is_first ? (n * k.channels + c) * size : (n * ghosts + c - start) * out_size;
      const int64_t at = (n * k.out_channels + c) * out_size;
      for (int64_t i = 0; i < out_size; ++i) {
        result.push_back((is_first ? z : y)[from + i] + (k.residual ? data.residual[at + i] : 0));
        (is_first ? d_z : d_y)[from + i] = data.d_out[at + i];
      }
    }
  }
  compare(evaluation ? "out of evaluation" : "out", data.out, result);
  if (evaluation) return;
  Doubles d_d = k.second ? norm2.backward(k.norm2, d_y, k.batch, ghosts, out_size) : d_y;
  Doubles d_weight(data.weight.size(), 0.0);
  if (k.convolution) {
    each_product(k, [&](int64_t i, int64_t w, int64_t o) {
      d_z[i] += d_d[o] * data.weight[w];
      d_weight[w] += d_d[o] * z[i];
    });
  }
  // Sums over all pixels, whose parts may cancel out (before a batch norm, those of a 1x1 kernel do).
  compare("d_weight", data.d_weight, d_weight, 2e-4);
  compare("d_x", data.d_x, k.first ? norm1.backward(k.norm1, d_z, k.batch, k.channels, size) : d_z);
  for (int which = 0; which < 2; ++which) {
    const SlowNorm& norm = which == 0 ? norm1 : norm2;
    if (!(which == 0 ? k.first : k.second)) continue;
    compare("mean", data.state[which][0], norm.mean);
    compare("d_gamma", data.gradient[which][0], norm.d_gamma);
    compare("d_beta", data.gradient[which][1], norm.d_beta);
  }
}

bool equal(const Data& a, const Data& b) {
  const auto first = a.results(), second = b.results();
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i]->empty()) continue;
    if (std::memcmp(first[i]->data(), second[i]->data(), first[i]->size() * sizeof(float)) != 0) return false;
  }
  return true;
}

void run(const Kernels& kernels, Data* data) {
  forward(kernels, data->chain);
  backward(kernels, data->chain);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const int64_t sizes[][2] = {{1, 1}, {7, 7}, {5, 9}, {14, 14}, {33, 40}};
  const int64_t kernels[][2] = {{1, 1}, {3, 3}, {5, 5}, {7, 7}, {1, 5}, {5, 1}};
  for (const auto& size : sizes) {
    for (const auto& kernel : kernels) {
      for (int64_t stride = 1; stride <= 3; ++stride) {
        const int64_t h = size[0], w = size[1], kh = kernel[0], kw = kernel[1];
        all.push_back({2, 3, h, w, 1, kh, kw, stride, 0, false, true, false, false, false, false});
        all.push_back({3, 2, h, w, 2, kh, kw, stride, 0, false, true, true, false, stride == 1, false});
      }
      all.push_back({3, 4, size[0], size[1], 1, kernel[0], kernel[1], 1, 0, true, true, true, true, true, false});
      all.push_back({2, 3, size[0], size[1], 2, kernel[0], kernel[1], 1, 1, true, true, true, false, false, true});
    }
    all.push_back({4, 33, size[0], size[1], 1, 1, 1, 1, 0, true, false, false, true, false, false});
    all.push_back({4, 1, size[0], size[1], 1, 1, 1, 1, 0, true, false, false, false, false, true});
  }
  // Batches of which eight samples of small maps are worked on together.
  std::vector<Case> together;
  for (Case c : all) {
    if (c.width > 16) continue;
    c.batch = c.batch == 2 ? 16 : 8;
    together.push_back(c);
  }
  all.insert(all.end(), together.begin(), together.end());
  return all;
}

void check_case(const Kernels& kernels, const Case& c, unsigned seed) {
  Data expected(c, seed);
  set_threads(1);
  run(kernels, &expected);
  const int before = failures;
  check(expected, false);
  Data evaluated(c, seed);
  evaluate(kernels, evaluated.chain);
  check(evaluated, true);
  for (int threads : {2, 3}) {
    Data again(c, seed);
    set_threads(threads);
    run(kernels, &again);
    Data evaluated_again(c, seed);
    evaluate(kernels, evaluated_again.chain);
    if (!equal(expected, again) || !equal(evaluated, evaluated_again)) {
      std::printf("%d threads give other bits than one\n", threads);
      ++failures;
    }
  }
  if (failures > before) name_sizes(kernels, c.batch, c.channels, expected.chain.map);
}

// Several callers, as MindSpore may run operators side by side.
void check_callers(const Kernels& kernels) {
  const Case c{2, 24, 14, 14, 1, 3, 3, 1, 0, true, true, true, true, true, false};
  set_threads(2);
  Data expected(c, 1);
  run(kernels, &expected);
  std::vector<Data> results(4, Data(c, 1));
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        Data mine(c, 1);
        run(kernels, &mine);
        if (!equal(expected, mine)) std::exit(1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// Means, gates and their gradients by their definitions.
void check_squeeze(const Kernels& kernels) {
  for (int64_t size : {1, 7, 49, 1023}) {
    const int64_t maps = 37;
    std::mt19937 generator(3);
    const Floats x = random_floats(maps * size, generator), d_y = random_floats(maps * size, generator);
    const Floats gates = random_floats(maps, generator);
    Doubles mean(maps, 0.0), spread, y, d_x, d_gates(maps, 0.0);
    for (int64_t i = 0; i < maps * size; ++i) {
      mean[i / size] += static_cast<double>(x[i]) / size;
      d_gates[i / size] += static_cast<double>(x[i]) * d_y[i];
      spread.push_back(gates[i / size] / static_cast<double>(size));
      y.push_back(static_cast<double>(x[i]) * gates[i / size]);
      d_x.push_back(static_cast<double>(d_y[i]) * gates[i / size]);
    }
    Floats first;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      Floats found_mean(maps), found_spread(maps * size), found_y(maps * size), found_d_x(maps * size);
      Floats found_d_gates(maps);
      means(kernels, maps, size, x.data(), found_mean.data());
      means_gradient(maps, size, gates.data(), found_spread.data());
      gate(kernels, maps, size, x.data(), gates.data(), found_y.data());
      gate_gradient(kernels, maps, size, x.data(), gates.data(), d_y.data(), found_d_x.data(), found_d_gates.data());
      compare("means", found_mean, mean);
      compare("gradient of means", found_spread, spread);
      compare("gated", found_y, y);
      compare("gradient of gated", found_d_x, d_x);
      compare("gradient of gates", found_d_gates, d_gates);
      compare_bits("gradient of gates", threads, &first, found_d_gates);
    }
  }
}

// A dense convolution and its gradients by their definitions, added to `out`, `d_x` and `d_weight`. No other thread and
// no operator sees these, and to watch them would take most of the time of all tests.
__attribute__((no_sanitize("thread", "address", "undefined"), optimize("O3"))) void convolve_slowly(
    const Convolution& k, const float* x, const float* weight, const float* d_out, double* out, double* d_x,
    double* d_weight) {
  const Geometry& g = k.map;
  const int64_t height = g.out_height(), width = g.out_width(), taps = g.kernel_height * g.kernel_width;
  for (int64_t at = 0; at < k.batch * k.out_channels * height * width; ++at) {
    const int64_t column = at % width, row = at / width % height;
    const int64_t o = at / (width * height) % k.out_channels, n = at / (width * height * k.out_channels);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t y = row + tap / g.kernel_width - g.pad_height, from = column + tap % g.kernel_width - g.pad_width;
      if (y < 0 || y >= g.height || from < 0 || from >= g.width) continue;
      for (int64_t i = 0; i < k.in_channels; ++i) {
        const int64_t in = ((n * k.in_channels + i) * g.height + y) * g.width + from;
        const int64_t w = (o * k.in_channels + i) * taps + tap;
        out[at] += static_cast<double>(x[in]) * weight[w];
        d_x[in] += static_cast<double>(d_out[at]) * weight[w];
        d_weight[w] += static_cast<double>(d_out[at]) * x[in];
      }
    }
  }
}

// Every instruction set's, against one result by the definitions.
void check_convolution(const std::vector<const Kernels*>& all_kernels, const Convolution& k) {
  const Geometry& g = k.map;
  const int64_t height = g.out_height(), width = g.out_width();
  std::mt19937 generator(11);
  const Floats x = random_floats(k.batch * k.in_channels * g.height * g.width, generator);
  const Floats weight = random_floats(k.out_channels * k.in_channels * g.kernel_height * g.kernel_width, generator);
  const Floats d_out = random_floats(k.batch * k.out_channels * height * width, generator);
  Doubles out(d_out.size(), 0.0), d_x(x.size(), 0.0), d_weight(weight.size(), 0.0);
  convolve_slowly(k, x.data(), weight.data(), d_out.data(), out.data(), d_x.data(), d_weight.data());
  for (const Kernels* kernels : all_kernels) {
    Floats found_out(out.size()), found_d_x(d_x.size()), found_d_weight(d_weight.size()), first;
    const int before = failures;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      convolve(*kernels, k, x.data(), weight.data(), found_out.data());
      convolve_input_gradient(*kernels, k, d_out.data(), weight.data(), found_d_x.data());
      convolve_weight_gradient(*kernels, k, x.data(), d_out.data(), found_d_weight.data());
      compare("dense out", found_out, out);
      compare("dense d_x", found_d_x, d_x);
      compare("dense d_weight", found_d_weight, d_weight, 1e-4);
      Floats all = found_out;
      all.insert(all.end(), found_d_x.begin(), found_d_x.end());
      all.insert(all.end(), found_d_weight.begin(), found_d_weight.end());
      compare_bits("dense", threads, &first, all);
    }
    if (failures > before) name_sizes(*kernels, k.batch, k.in_channels, g);
  }
}

void check_convolutions(const std::vector<const Kernels*>& kernels) {
  // Every remainder of a window's pixels and outputs; several bands of rows, groups of samples, and blocks at once.
  for (int64_t outs = 1; outs <= 18; ++outs) {
    const int64_t size = (outs - 1) % 6 + 1;
    check_convolution(kernels, {8, outs % 4 + 1, outs, {size, 7 - size, 3, 3, 1, 1, 1}});
  }
  check_convolution(kernels, {16, 3, 5, {9, 8, 5, 3, 1, 2, 1}});
  check_convolution(kernels, {8, 2, 4, {9, 40, 1, 7, 1, 0, 3}});
  check_convolution(kernels, {8, 3, 2, {7, 7, 3, 3, 1, 0, 0}});
  check_convolution(kernels, {136, 3, 5, {2, 3, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {8, 160, 70, {2, 2, 5, 3, 1, 2, 1}});
  // By Winograd's algorithm: odd and even sizes, several parts.
  check_convolution(kernels, {8, 16, 17, {7, 9, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {16, 18, 16, {12, 70, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {8, 16, 16, {1, 2, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {8, 16, 20, {8, 5, 3, 3, 1, 0, 0}});
  check_convolution(kernels, {8, 300, 40, {2, 2, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {16, 50, 41, {12, 11, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {8, 35, 64, {5, 70, 3, 3, 1, 1, 1}});
  // Small maps, several blocks of samples together, at last fewer.
  check_convolution(kernels, {40, 16, 20, {3, 4, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {72, 17, 16, {4, 5, 3, 3, 1, 1, 1}});
}

// Products in bfloat16, by the processor and by loops, of values that bfloat16 holds as they are.
void check_bfloat16(const Kernels& kernels, const Convolution& k) {
  const Geometry& g = k.map;
  std::mt19937 generator(17);
  const auto rounded = [&](int64_t size) {
    Floats values = random_floats(size, generator);
    std::vector<uint16_t> halves(size);
    plain_tiles.round(halves.data(), values.data(), size);
    for (int64_t i = 0; i < size; ++i) {
      const uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
      const float before = values[i];
      std::memcpy(&values[i], &bits, sizeof(float));
      if (std::fabs(values[i] - before) > std::fabs(before) / 256) ++failures;
    }
    return values;
  };
  const Floats x = rounded(k.batch * k.in_channels * g.height * g.width);
  const Floats weight = rounded(k.out_channels * k.in_channels * g.kernel_height * g.kernel_width);
  const Floats d_out = rounded(k.batch * k.out_channels * g.out_height() * g.out_width());
  Doubles out(d_out.size(), 0.0), d_x(x.size(), 0.0), d_weight(weight.size(), 0.0);
  convolve_slowly(k, x.data(), weight.data(), d_out.data(), out.data(), d_x.data(), d_weight.data());
  for (const Tiles* tiles : {&plain_tiles, amx_tiles()}) {
    if (!tiles) continue;
    Floats found_out(out.size()), found_d_x(d_x.size()), found_d_weight(d_weight.size()), first;
    const int before = failures;
    for (int threads : {1, 3}) {
      set_threads(threads);
      convolve(*tiles, k, x.data(), weight.data(), found_out.data());
      convolve_input_gradient(*tiles, k, d_out.data(), weight.data(), found_d_x.data());
      convolve_weight_gradient(*tiles, kernels, k, x.data(), d_out.data(), found_d_weight.data());
      compare("bfloat16 out", found_out, out);
      compare("bfloat16 d_x", found_d_x, d_x);
      compare("bfloat16 d_weight", found_d_weight, d_weight, 1e-4);
      Floats all = found_out;
      all.insert(all.end(), found_d_x.begin(), found_d_x.end());
      all.insert(all.end(), found_d_weight.begin(), found_d_weight.end());
      compare_bits("bfloat16", threads, &first, all);
    }
    if (failures > before) name_sizes(kernels, k.batch, k.in_channels, g);
  }
}

void check_bfloat16_convolutions(const Kernels& kernels) {
  check_bfloat16(kernels, {3, 5, 40, {7, 6, 1, 1, 1, 0, 0}});
  check_bfloat16(kernels, {9, 33, 17, {6, 6, 3, 3, 1, 1, 1}});
  check_bfloat16(kernels, {5, 16, 35, {9, 11, 5, 3, 1, 2, 1}});
  check_bfloat16(kernels, {2, 20, 16, {8, 5, 3, 3, 1, 0, 0}});   // smaller results
  check_bfloat16(kernels, {2, 18, 16, {5, 7, 3, 3, 1, 2, 2}});   // larger ones
  check_bfloat16(kernels, {4, 16, 16, {1, 1, 3, 3, 1, 1, 1}});
}

// Maps that are worked on in parts, side by side and below each other, of any number of samples.
void check_large_convolutions(const std::vector<const Kernels*>& kernels) {
  check_convolution(kernels, {1, 3, 5, {35, 131, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {3, 4, 2, {61, 18, 5, 3, 1, 2, 1}});
  check_convolution(kernels, {9, 2, 3, {1, 1025, 1, 3, 1, 0, 1}});
  check_convolution(kernels, {2, 90, 4, {30, 40, 3, 3, 1, 0, 0}});
  check_convolution(kernels, {1, 17, 18, {45, 130, 3, 3, 1, 1, 1}});
  check_convolution(kernels, {3, 40, 16, {34, 35, 3, 3, 1, 0, 0}});
}

// The largest of 2x2 pixels, and the gradient of the first of them. The values are few, so that many are equal.
void check_max_pool() {
  const int64_t maps = 5, sizes[][2] = {{2, 2}, {7, 6}, {8, 9}, {1, 3}, {33, 16}};
  for (const auto& size : sizes) {
    const int64_t height = size[0], width = size[1], rows = height / 2, columns = width / 2;
    std::mt19937 generator(5);
    Floats x = random_floats(maps * height * width, generator, 0, 3), out(maps * rows * columns), d_x(x.size(), 9.0f);
    for (float& value : x) value = std::floor(value);
    const Floats d_out = random_floats(out.size(), generator);
    Doubles expected(out.size()), gradient(x.size(), 0.0);
    for (size_t at = 0; at < out.size(); ++at) {
      const int64_t top = at / columns % rows * 2, left = at % columns * 2, map = at / (rows * columns);
      int64_t largest = -1;
      for (int64_t pixel = 0; pixel < 4; ++pixel) {
        const int64_t in = (map * height + top + pixel / 2) * width + left + pixel % 2;
        if (largest < 0 || x[in] > x[largest]) largest = in;
      }
      expected[at] = x[largest];
      gradient[largest] = d_out[at];
    }
    set_threads(2);
    max_pool(maps, height, width, x.data(), out.data());
    max_pool_gradient(maps, height, width, x.data(), d_out.data(), d_x.data());
    compare("max pool", out, expected, 0);
    compare("gradient of max pool", d_x, gradient, 0);
  }
  for (int nan = 0; nan < 4; ++nan) {
    Floats x{1, 2, 3, 4}, out(1);
    x[nan] = std::numeric_limits<float>::quiet_NaN();
    max_pool(1, 2, 2, x.data(), out.data());
    if (!std::isnan(out[0])) {
      std::printf("max pool loses a NaN\n");
      ++failures;
    }
  }
}

// Bilinear resizing and its gradient by their definitions: every factor that has loops of its own, odd ones, sizes that are
// no multiples, that shrink, and that are one pixel; a map that is shared out among threads.
void check_upsample(const Kernels& kernels) {
  const int64_t sizes[][4] = {{3, 5, 6, 10},  {7, 9, 28, 36}, {4, 3, 32, 24}, {5, 4, 15, 12}, {1, 1, 4, 2}, {2, 2, 4, 4},
                              {1, 2, 8, 16},  {6, 7, 13, 9},  {9, 8, 4, 3},   {31, 18, 2, 7}, {5, 6, 5, 6}, {8, 40, 16, 80},
                              {2, 700, 200, 1400}};
  for (const auto& size : sizes) {
    const Resize k{3, size[0], size[1], size[2], size[3]};
    std::mt19937 generator(9);
    const Floats x = random_floats(k.maps * k.height * k.width, generator);
    const Floats d_out = random_floats(k.maps * k.out_height * k.out_width, generator);
    Doubles out(d_out.size(), 0.0), d_x(x.size(), 0.0);
    for (int64_t at = 0; at < static_cast<int64_t>(out.size()); ++at) {
      const int64_t map = at / (k.out_height * k.out_width);
      const double scale_y = static_cast<double>(k.height) / k.out_height;
      const double scale_x = static_cast<double>(k.width) / k.out_width;
      const double y = std::max(0.0, (at / k.out_width % k.out_height + 0.5) * scale_y - 0.5);
      const double from = std::max(0.0, (at % k.out_width + 0.5) * scale_x - 0.5);
      const int64_t top = static_cast<int64_t>(y), left = static_cast<int64_t>(from);
      for (int64_t corner = 0; corner < 4; ++corner) {
        const int64_t row = std::min(top + corner / 2, k.height - 1), column = std::min(left + corner % 2, k.width - 1);
        const double weight = (corner / 2 ? y - top : 1 - y + top) * (corner % 2 ? from - left : 1 - from + left);
        const int64_t in = (map * k.height + row) * k.width + column;
        out[at] += weight * x[in];
        d_x[in] += weight * d_out[at];
      }
    }
    Floats first, first_d_x;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      Floats found(out.size(), 9.0f), found_d_x(d_x.size(), 9.0f);
      upsample(kernels, k, x.data(), found.data());
      upsample_gradient(kernels, k, d_out.data(), found_d_x.data());
      compare("upsampled", found, out);
      compare("gradient of upsampled", found_d_x, d_x);
      compare_bits("upsampled", threads, &first, found);
      compare_bits("gradient of upsampled", threads, &first_d_x, found_d_x);
    }
  }
}

// A pixel's loss and its gradient by their definitions; logits that are large, labels that are ignored.
void check_pixel_losses(const Kernels& kernels) {
  const int64_t sizes[][3] = {{2, 1, 3}, {1, 2, 8}, {3, 5, 700}, {1, 150, 301}};
  for (const auto& size : sizes) {
    for (const float smoothing : {0.0f, 0.1f}) {
      PixelLoss k{size[0], size[1], size[2], 255, smoothing, nullptr, nullptr, nullptr};
      std::mt19937 generator(13);
      const Floats logits = random_floats(k.batch * k.classes * k.pixels, generator, -60, 60);
      const Floats weights = random_floats(k.classes, generator, 0, 2);
      const Floats d_losses = random_floats(k.batch * k.pixels, generator);
      const float d_sum = 0.5f;
      std::vector<int32_t> labels(k.batch * k.pixels);
      for (int32_t& label : labels) label = generator() % 4 ? generator() % k.classes : 255;
      Doubles losses(labels.size(), 0.0), d_logits(logits.size(), 0.0), sums(2, 0.0);
      double all_weights = 0;
      for (float weight : weights) all_weights += weight;
      for (size_t at = 0; at < labels.size(); ++at) {
        if (labels[at] == k.ignored) continue;
        const int64_t place = at / k.pixels * k.classes * k.pixels + at % k.pixels;
        double largest = -1e9, total = 0;
        for (int64_t c = 0; c < k.classes; ++c) largest = std::max<double>(largest, logits[place + c * k.pixels]);
        for (int64_t c = 0; c < k.classes; ++c) total += std::exp(logits[place + c * k.pixels] - largest);
        const double own = weights[labels[at]] * (1 - smoothing), gradient = d_losses[at] + d_sum;
        for (int64_t c = 0; c < k.classes; ++c) {
          const double goal = (c == labels[at] ? own : 0) + smoothing / k.classes * weights[c];
          const double below = logits[place + c * k.pixels] - largest;
          losses[at] += goal * (std::log(total) - below);
          d_logits[place + c * k.pixels] =
              gradient * (std::exp(below) / total * (own + smoothing / k.classes * all_weights) - goal);
        }
        sums[0] += losses[at];
        sums[1] += weights[labels[at]];
      }
      k.logits = logits.data();
      k.labels = labels.data();
      k.weights = weights.data();
      Floats first, first_gradient;
      for (int threads : {1, 2, 3}) {
        set_threads(threads);
        Floats found(losses.size()), found_sums(2), found_gradient(logits.size());
        pixel_losses(kernels, k, found.data(), &found_sums[0], &found_sums[1]);
        pixel_losses_gradient(kernels, k, d_losses.data(), d_sum, found_gradient.data());
        compare("pixels' losses", found, losses, 1e-6);
        compare("pixels' sums", found_sums, sums, 1e-6);
        compare("gradient of pixels' losses", found_gradient, d_logits, 1e-6);
        compare_bits("pixels' sums", threads, &first, found_sums);
        compare_bits("gradient of pixels' losses", threads, &first_gradient, found_gradient);
      }
      labels[0] = static_cast<int32_t>(k.classes);
      try {
        Floats found(losses.size()), found_sums(2);
        pixel_losses(kernels, k, found.data(), &found_sums[0], &found_sums[1]);
        std::printf("a label that is no class was taken\n");
        ++failures;
      } catch (const std::out_of_range&) {
      }
    }
  }
}

// Which elements dropout leaves: a hash of key and position, the same for any number of threads.
void check_drop(const Kernels& kernels) {
  const int64_t size = 40001;
  const uint32_t key = 0xFEDCBA98;
  std::mt19937 generator(17);
  const Floats x = random_floats(size, generator);
  Doubles expected;
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435769u + key;
    bits = (bits ^ (bits >> 16)) * 0x7FEB352Du;
    bits = (bits ^ (bits >> 15)) * 0x846CA68Bu;
    bits ^= bits >> 16;
    expected.push_back((bits & 0xFFFFFF) / 16777216.0 >= 0.25 ? x[i] / 0.75 : 0);
  }
  Floats first;
  for (int threads : {1, 2, 3}) {
    set_threads(threads);
    Floats found(size);
    drop(kernels, size, key, 0.25f, 0.75f, x.data(), found.data());
    compare("dropped", found, expected, 1e-7);
    compare_bits("dropped", threads, &first, found);
  }
}

// Sums over processes, which threads stand for here: each maps the file on its own.
void check_sum(const Kernels& kernels) {
  const int ranks = 3, rounds = 40;
  const int64_t sizes[] = {1, 1000, 7};
  char path[] = "/tmp/ghostnet_test.XXXXXX";
  const int file = mkstemp(path);
  if (file < 0 || ftruncate(file, SharedSum::bytes(ranks, 1008)) != 0) std::exit(1);
  std::vector<std::thread> callers;
  std::vector<int> wrong(ranks, 0);
  for (int rank = 0; rank < ranks; ++rank) {
    callers.emplace_back([&, rank] {
      SharedSum sum(path, rank, ranks, 1008);
      for (int round = 0; round < rounds; ++round) {
        std::vector<Floats> in, out;
        for (int64_t size : sizes) {
          in.emplace_back(size);
          out.emplace_back(size);
          for (int64_t i = 0; i < size; ++i) in.back()[i] = static_cast<float>((rank + 1) * (i + round));
        }
        const float* ins[] = {in[0].data(), in[1].data(), in[2].data()};
        float* outs[] = {out[0].data(), out[1].data(), out[2].data()};
        if (!sum.sum(kernels, 3, ins, sizes, outs)) ++wrong[rank];
        for (int part = 0; part < 3; ++part) {
          for (int64_t i = 0; i < sizes[part]; ++i) wrong[rank] += out[part][i] != 6.0f * (i + round);
        }
      }
      const int64_t too_many[] = {1009};
      Floats in(1009), out(1009);
      const float* ins[] = {in.data()};
      float* outs[] = {out.data()};
      wrong[rank] += sum.sum(kernels, 1, ins, too_many, outs);
    });
  }
  for (std::thread& caller : callers) caller.join();
  unlink(path);
  close(file);
  for (int each : wrong) {
    if (each == 0) continue;
    std::printf("%d wrong sums over processes\n", each);
    ++failures;
  }
}

// Two updates of some tensors, and the sum of the gradients' squares, by their definitions.
void check_momentum(const Kernels& kernels) {
  const int64_t sizes[] = {1, 7, 40000, 16384, 3};
  for (const bool nesterov : {false, true}) {
    for (const bool with_starts : {false, true}) {
      Floats first_weights;
      for (int threads : {1, 2, 3}) {
        set_threads(threads);
        std::mt19937 generator(5);
        std::vector<Floats> gradients, weights, moments, starts;
        std::vector<Doubles> expected_weights, expected_moments;
        std::vector<Weights> all;
        const MomentumStep step{0.25f, 0, 0.9f, 0, nesterov ? 1.0f : 0.0f, nesterov ? 0.9f : 1.0f};
        double expected_squares = 0;
        for (int64_t size : sizes) {
          gradients.push_back(random_floats(size, generator));
          weights.push_back(random_floats(size, generator));
          moments.push_back(random_floats(size, generator));
          starts.push_back(Floats(size, size == 7 ? 0.0f : 1.0f));
        }
        for (size_t i = 0; i < gradients.size(); ++i) {
          const float decay = i % 2 ? 0.01f : 0.0f, rate = i % 3 ? 0.1f : 0.02f;
          all.push_back({sizes[i], gradients[i].data(), weights[i].data(), moments[i].data(),
                         with_starts ? starts[i].data() : nullptr, decay, rate});
          Doubles w(weights[i].begin(), weights[i].end()), m(moments[i].begin(), moments[i].end());
          for (int64_t j = 0; j < sizes[i]; ++j) {
            const double scaled = gradients[i][j] * 0.25;
            expected_squares += scaled * scaled;
            for (int round = 0; round < 2; ++round) {
              const double own = scaled + w[j] * decay;
              const bool afresh = with_starts && round == 0 && starts[i][0] != 0;
              m[j] = (afresh ? 0 : m[j] * 0.9) + own;
              w[j] -= rate * (nesterov ? own + 0.9 * m[j] : m[j]);
            }
          }
          expected_weights.push_back(w);
          expected_moments.push_back(m);
        }
        compare("sum of squares", {static_cast<float>(square_sum(kernels, all, 0.25f) / 1e3)}, {expected_squares / 1e3});
        update_momentum(kernels, all, step);
        update_momentum(kernels, all, step);
        Floats found_weights;
        for (size_t i = 0; i < all.size(); ++i) {
          compare("updated weights", weights[i], expected_weights[i]);
          compare("updated moments", moments[i], expected_moments[i]);
          found_weights.insert(found_weights.end(), weights[i].begin(), weights[i].end());
          if (with_starts) compare("starts", starts[i], Doubles(starts[i].size(), 0.0));
        }
        compare_bits("updated weights", threads, &first_weights, found_weights);
      }
    }
  }
}

// Two updates of a tensor by RMSprop, Adam and LAMB, by their definitions.
struct Updated {
  Doubles weights, first, second;
};

Updated by_definition(const std::string& kind, const Floats& weights, const Floats& gradient, double decay, double rate) {
  const size_t size = weights.size();
  Updated made{Doubles(weights.begin(), weights.end()), Doubles(size, kind == "rmsprop" ? 1.5 : 0), Doubles(size, 0)};
  for (int round = 1; round <= 2; ++round) {
    Doubles direction(size);
    double length = 0, weight = 0;
    for (size_t i = 0; i < size; ++i) {
      double own = gradient[i] * 0.25;
      if (kind == "rmsprop") {
        own += made.weights[i] * decay;
        made.first[i] = (made.first[i] + 0.01) * 0.9 + 0.1 * own * own;
        made.second[i] = made.second[i] * 0.8 + rate * own / std::sqrt(made.first[i]);
        direction[i] = made.second[i];
        continue;
      }
      made.first[i] = made.first[i] * 0.9 + 0.1 * own;
      made.second[i] = made.second[i] * 0.99 + 0.01 * own * own;
      const double mean = made.first[i] / (1 - std::pow(0.9, round)), square = made.second[i] / (1 - std::pow(0.99, round));
      direction[i] = mean / (std::sqrt(square) + 1e-3) + decay * made.weights[i];
      length += direction[i] * direction[i];
      weight += made.weights[i] * made.weights[i];
    }
    const double trust = length > 0 && weight > 0 ? std::min(10.0, std::sqrt(weight / length)) : 1;
    const double step = kind == "rmsprop" ? 1 : kind == "adam" ? rate : rate * trust;
    for (size_t i = 0; i < size; ++i) made.weights[i] -= step * direction[i];
  }
  return made;
}

void check_other_updates(const Kernels& kernels) {
  const int64_t sizes[] = {1, 7, 40000, 16384, 3, 5};
  for (const std::string kind : {"rmsprop", "adam", "lamb"}) {
    Floats first_weights;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      std::mt19937 generator(6);
      std::vector<Floats> gradients, weights, firsts, seconds;
      std::vector<Weights> all;
      for (int64_t size : sizes) {
        gradients.push_back(random_floats(size, generator));
        weights.push_back(random_floats(size, generator));
        firsts.push_back(Floats(size, kind == "rmsprop" ? 1.5f : 0.0f));
        seconds.push_back(Floats(size, 0.0f));
      }
      // Without a length of its own, and so long that its ratio is limited.
      weights[4] = Floats(3, 0.0f);
      for (float& weight : weights[5]) weight = 50 + weight;
      std::vector<Updated> expected;
      for (size_t i = 0; i < gradients.size(); ++i) {
        const float decay = i % 2 ? 0.01f : 0.0f, rate = i % 3 ? 0.1f : 0.02f;
        all.push_back({sizes[i], gradients[i].data(), weights[i].data(), firsts[i].data(), seconds[i].data(), decay, rate});
        expected.push_back(by_definition(kind, weights[i], gradients[i], decay, rate));
      }
      for (int round = 1; round <= 2; ++round) {
        const AdamStep step{0.25f, 0, 0, 0.9f, 0.99f, 1e-3f, static_cast<float>(1 - std::pow(0.9, round)),
                            static_cast<float>(1 - std::pow(0.99, round))};
        if (kind == "rmsprop") update_rmsprop(kernels, all, {0.25f, 0, 0, 0.9f, 0.8f, 0.01f});
        if (kind == "adam") update_adam(kernels, all, step);
        if (kind == "lamb") update_lamb(kernels, all, step, 10);
      }
      Floats found_weights;
      for (size_t i = 0; i < all.size(); ++i) {
        compare(("weights by " + kind).c_str(), weights[i], expected[i].weights);
        compare("first numbers", firsts[i], expected[i].first);
        compare("second numbers", seconds[i], expected[i].second);
        found_weights.insert(found_weights.end(), weights[i].begin(), weights[i].end());
      }
      compare_bits("updated weights", threads, &first_weights, found_weights);
    }
  }
}

// Averages that follow values, by their definition; an average of its own value stays what it is.
void check_averages(const Kernels& kernels) {
  Floats first;
  for (int threads : {1, 2, 3}) {
    set_threads(threads);
    std::mt19937 generator(7);
    std::vector<Floats> values, averages;
    for (int64_t size : {1, 7, 40000, 16384}) {
      values.push_back(random_floats(size, generator));
      averages.push_back(size == 7 ? values.back() : random_floats(size, generator));
    }
    std::vector<Average> all;
    std::vector<Doubles> expected;
    for (size_t i = 0; i < values.size(); ++i) {
      all.push_back({static_cast<int64_t>(values[i].size()), averages[i].data(), values[i].data()});
      expected.emplace_back();
      for (size_t j = 0; j < values[i].size(); ++j) {
        expected[i].push_back(averages[i][j] * 0.7 + values[i][j] * 0.3);
      }
    }
    update_averages(kernels, all, 0.3f);
    Floats found;
    for (size_t i = 0; i < all.size(); ++i) {
      compare("averages", averages[i], expected[i]);
      found.insert(found.end(), averages[i].begin(), averages[i].end());
    }
    if (averages[1] != values[1]) {
      std::printf("an average of its own value changed\n");
      ++failures;
    }
    compare_bits("averages", threads, &first, found);
  }
}

// What is not a number must stay visible.
void check_nan(const Kernels& kernels) {
  Data data({2, 1, 3, 3, 1, 1, 1, 1, 0, true, false, false, true, false, false}, 1);
  data.x[4] = std::numeric_limits<float>::quiet_NaN();
  run(kernels, &data);
  const float logits[] = {1, data.x[4], 2, 3}, weights[] = {1, 1};
  const int32_t labels[] = {0, 0};
  float losses[2], sum, weight;
  pixel_losses(kernels, {1, 2, 2, 255, 0, logits, labels, weights}, losses, &sum, &weight);
  data.out.push_back(losses[1]);
  data.out.push_back(sum);
  for (float value : data.out) {
    if (!std::isnan(value)) {
      std::printf("a NaN was lost\n");
      ++failures;
      return;
    }
  }
}

}  // namespace

namespace ghostnet {
std::vector<const Kernels*> usable_kernels();
}

// With an argument: only the first case in so many, for sanitizers that take their time. With a second one: only the best
// instruction set, for the thread sanitizer, as loops over values know nothing of threads.
int main(int count, char** arguments) {
  std::vector<Case> all;
  const std::vector<Case> every = cases();
  for (size_t i = 0; i < every.size(); i += count > 1 ? std::atoi(arguments[1]) : 1) all.push_back(every[i]);
  std::vector<const Kernels*> kernels = usable_kernels();
  if (count > 2) kernels = {kernels.back()};
  for (const Kernels* each : kernels) {
    for (const Case& c : all) check_case(*each, c, 7);
    check_callers(*each);
    check_squeeze(*each);
    check_sum(*each);
    check_momentum(*each);
    check_other_updates(*each);
    check_averages(*each);
    check_upsample(*each);
    check_drop(*each);
    check_pixel_losses(*each);
    check_nan(*each);
  }
  check_convolutions(kernels);
  check_large_convolutions(kernels);
  check_bfloat16_convolutions(*kernels.back());
  check_max_pool();
  std::printf("%zu cases, %d failures\n", all.size(), failures);
  return failures > 0;
}
