#include "convolution.h"

#include <algorithm>
#include <vector>

#include "pool.h"

namespace ghostnet {
namespace {

// Groups of samples whose parts of the weights' gradient are summed one after the other: their number doesn't depend
// on that of the threads.
constexpr int64_t kGroups = 8;
// Weights that stay in the second-level cache while all pixels pass by.
constexpr int64_t kWeights = 1 << 15;
// Pixels of the gradient that stay in the first-level cache while all input channels pass by: some rows, or some maps.
constexpr int64_t kBand = 32;

int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// What is not a number stays visible: a run that diverges has to be seen.
float larger(float a, float b) { return a > b || a != a ? a : b; }

// kTogether samples of a tensor (N, channels, height, width), with zeros around each map: element l of pixel (y, x) is
// the one of sample l.
class Block {
 public:
  Block(int64_t channels, int64_t height, int64_t width, int64_t pad_height, int64_t pad_width)
      : channels_(channels),
        height_(height),
        width_(width),
        row_((width + 2 * pad_width) * kTogether),
        plane_((height + 2 * pad_height) * row_),
        first_(pad_height * row_ + pad_width * kTogether),
        values_(channels * plane_) {}

  int64_t row() const { return row_; }
  int64_t plane() const { return plane_; }
  // Where the padding begins, and where the map does.
  float* padded() { return values_.get(); }
  float* map() { return values_.get() + first_; }

  void read(const float* samples) {
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < height_; ++y) {
        float* to = map() + c * plane_ + y * row_;
        const float* from = samples + (c * height_ + y) * width_;
        for (int64_t x = 0; x < width_; ++x, ++from, to += kTogether) {
          for (int lane = 0; lane < kTogether; ++lane) to[lane] = from[lane * channels_ * height_ * width_];
        }
      }
    }
  }

  void write(float* samples) {
    const int64_t sample = channels_ * height_ * width_;
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t y = 0; y < height_; ++y) {
        const float* from = map() + c * plane_ + y * row_;
        float* to = samples + (c * height_ + y) * width_;
        for (int lane = 0; lane < kTogether; ++lane) {
          for (int64_t x = 0; x < width_; ++x) to[lane * sample + x] = from[x * kTogether + lane];
        }
      }
    }
  }

 private:
  const int64_t channels_, height_, width_, row_, plane_, first_;
  Buffer values_;
};

// Weights in the order in which `window` reads them: kWindowOuts outputs side by side. `weight(o, i, tap)` gives each.
template <typename Weight>
std::vector<float> packed(int64_t outs, int64_t ins, int64_t taps, const Weight& weight) {
  std::vector<float> values;
  values.reserve(outs * ins * taps);
  for (int64_t first = 0; first < outs; first += kWindowOuts) {
    const int64_t end = std::min<int64_t>(first + kWindowOuts, outs);
    for (int64_t i = 0; i < ins; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t o = first; o < end; ++o) values.push_back(weight(o, i, tap));
      }
    }
  }
  return values;
}

// Every pixel of a block, for the outputs from `first` to `end`. `in` is padded, `out` is not.
void convolve_outs(const Kernels& kernels, const Convolution& k, Block& in, Block& out, const float* weights,
                   int64_t first, int64_t end) {
  const int64_t height = k.map.out_height(), width = k.map.out_width();
  const int64_t size = k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const Window window{k.in_channels, k.map.kernel_height, k.map.kernel_width, in.plane(), in.row()};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; x += kWindowPixels) {
      const int pixels = static_cast<int>(std::min<int64_t>(kWindowPixels, width - x));
      const float* from = in.padded() + y * in.row() + x * kTogether;
      float* to = out.map() + y * out.row() + x * kTogether;
      for (int64_t o = first; o < end; o += kWindowOuts) {
        const int outs = static_cast<int>(std::min<int64_t>(kWindowOuts, end - o));
        kernels.window(to + o * out.plane(), out.plane(), from, weights + o * size, window, pixels, outs);
      }
    }
  }
}

// Every pixel and output of a block.
void convolve_block(const Kernels& kernels, const Convolution& k, Block& in, Block& out, const float* weights) {
  const int64_t size = k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const int64_t part = std::max<int64_t>(1, kWeights / (size * kWindowOuts)) * kWindowOuts;
  for (int64_t o = 0; o < k.out_channels; o += part) {
    convolve_outs(kernels, k, in, out, weights, o, std::min(o + part, k.out_channels));
  }
}

void convolve_all(const Kernels& kernels, const Convolution& k, const float* x, const std::vector<float>& weights,
                  float* out) {
  const int64_t height = k.map.out_height(), width = k.map.out_width();
  const int64_t sample = k.in_channels * k.map.height * k.map.width, out_sample = k.out_channels * height * width;
  parallel(k.batch / kTogether, 1, [&](Parts& parts) {
    Block from(k.in_channels, k.map.height, k.map.width, k.map.pad_height, k.map.pad_width);
    Block to(k.out_channels, height, width, 0, 0);
    for (int64_t block; parts.next(&block);) {
      from.read(x + block * kTogether * sample);
      convolve_block(kernels, k, from, to, weights.data());
      to.write(out + block * kTogether * out_sample);
    }
  });
}

// A thread's part of the weights' gradient: sums over samples.
class WeightGradient {
 public:
  WeightGradient(const Kernels& kernels, const Convolution& k)
      : kernels_(kernels),
        k_(k),
        size_(k.in_channels * k.map.kernel_height * k.map.kernel_width),
        together_(std::max<int64_t>(1, kBand / (k.map.out_height() * k.map.out_width()))),
        sums_(size_ * kGradientOuts * kTogether) {
    for (int64_t i = 0; i < together_; ++i) {
      x_.emplace_back(k.in_channels, k.map.height, k.map.width, k.map.pad_height, k.map.pad_width);
      d_out_.emplace_back(k.out_channels, k.map.out_height(), k.map.out_width(), 0, 0);
    }
  }

  // Adds what so many samples give, a multiple of kTogether.
  void add(const float* x, const float* d_out, int64_t samples, float* d_weight) {
    const int64_t sample = k_.in_channels * k_.map.height * k_.map.width;
    const int64_t out_sample = k_.out_channels * k_.map.out_height() * k_.map.out_width();
    for (int64_t first = 0; first < samples; first += together_ * kTogether) {
      int64_t blocks = 0;
      for (int64_t n = first; n < samples && blocks < together_; n += kTogether, ++blocks) {
        x_[blocks].read(x + n * sample);
        d_out_[blocks].read(d_out + n * out_sample);
      }
      for (int64_t o = 0; o < k_.out_channels; o += kGradientOuts) add_outs(o, blocks, d_weight);
    }
  }

 private:
  // Adds what the blocks give to the weights of some outputs.
  void add_outs(int64_t o, int64_t blocks, float* d_weight) {
    const int outs = static_cast<int>(std::min<int64_t>(kGradientOuts, k_.out_channels - o));
    const int64_t height = k_.map.out_height(), band = std::max<int64_t>(1, kBand / k_.map.out_width());
    std::fill_n(sums_.get(), size_ * outs * kTogether, 0.0f);
    for (int64_t y = 0; y < height; y += band) add_rows(o, outs, y, std::min(band, height - y), blocks);
    const float* sum = sums_.get();
    for (int64_t i = 0; i < size_; ++i) {
      for (int out = 0; out < outs; ++out, sum += kTogether) {
        float total = 0;
        for (int lane = 0; lane < kTogether; ++lane) total += sum[lane];
        d_weight[(o + out) * size_ + i] += total;
      }
    }
  }

  void add_rows(int64_t o, int outs, int64_t y, int64_t rows, int64_t blocks) {
    const float *gradients[kBand], *inputs[kBand];
    for (int64_t block = 0; block < blocks; ++block) {
      gradients[block] = d_out_[block].map() + o * d_out_[0].plane() + y * d_out_[0].row();
    }
    const GradientWindow window{gradients,         inputs,           blocks,      rows, k_.map.out_width(),
                                d_out_[0].plane(), d_out_[0].row(), x_[0].row()};
    float* sums = sums_.get();
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      for (int64_t ky = 0; ky < k_.map.kernel_height; ++ky) {
        for (int64_t kx = 0; kx < k_.map.kernel_width; kx += kGradientTaps) {
          for (int64_t block = 0; block < blocks; ++block) {
            inputs[block] = x_[block].padded() + i * x_[0].plane() + (y + ky) * x_[0].row() + kx * kTogether;
          }
          const int taps = static_cast<int>(std::min<int64_t>(kGradientTaps, k_.map.kernel_width - kx));
          kernels_.window_gradient(sums, window, taps, outs);
          sums += taps * outs * kTogether;
        }
      }
    }
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t size_;      // weights of an output
  const int64_t together_;  // blocks: where maps are tiny there would be more adding up than multiplying
  std::vector<Block> x_, d_out_;
  Scratch sums_;
};

}  // namespace

void convolve(const Kernels& kernels, const Convolution& k, const float* x, const float* weight, float* out) {
  const int64_t ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width;
  const auto weights = packed(k.out_channels, ins, taps, [=](int64_t o, int64_t i, int64_t tap) {
    return weight[(o * ins + i) * taps + tap];
  });
  convolve_all(kernels, k, x, weights, out);
}

void convolve_input_gradient(const Kernels& kernels, const Convolution& k, const float* d_out, const float* weight,
                             float* d_x) {
  // The convolution of the gradient with the kernel turned by half a turn.
  const int64_t ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width;
  const auto weights = packed(ins, k.out_channels, taps, [=](int64_t i, int64_t o, int64_t tap) {
    return weight[(o * ins + i) * taps + taps - 1 - tap];
  });
  Convolution turned{k.batch, k.out_channels, ins, k.map};
  turned.map.height = k.map.out_height();
  turned.map.width = k.map.out_width();
  turned.map.pad_height = k.map.kernel_height - 1 - k.map.pad_height;
  turned.map.pad_width = k.map.kernel_width - 1 - k.map.pad_width;
  convolve_all(kernels, turned, d_out, weights, d_x);
}

void convolve_weight_gradient(const Kernels& kernels, const Convolution& k, const float* x, const float* d_out,
                              float* d_weight) {
  const int64_t sample = k.in_channels * k.map.height * k.map.width;
  const int64_t out_sample = k.out_channels * k.map.out_height() * k.map.out_width();
  const int64_t size = k.out_channels * k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const int64_t blocks = k.batch / kTogether, each = divide_up(blocks, kGroups), groups = divide_up(blocks, each);
  std::vector<float> sums(groups * size);
  parallel(groups, 1, [&](Parts& parts) {
    WeightGradient gradient(kernels, k);
    for (int64_t group; parts.next(&group);) {
      const int64_t first = group * each * kTogether, samples = std::min(each * kTogether, k.batch - first);
      gradient.add(x + first * sample, d_out + first * out_sample, samples, sums.data() + group * size);
    }
  });
  std::copy_n(sums.data(), size, d_weight);
  for (int64_t group = 1; group < groups; ++group) kernels.add(d_weight, sums.data() + group * size, size);
}

void max_pool(int64_t maps, int64_t height, int64_t width, const float* x, float* out) {
  const int64_t rows = height / 2, columns = width / 2;
  parallel(maps, std::max<int64_t>(1, (1 << 14) / (height * width)), [=](Parts& parts) {
    for (int64_t map; parts.next(&map);) {
      for (int64_t row = 0; row < rows; ++row) {
        const float* above = x + (map * height + 2 * row) * width;
        const float* below = above + width;
        float* to = out + (map * rows + row) * columns;
        for (int64_t i = 0; i < columns; ++i) {
          to[i] = larger(larger(above[2 * i], above[2 * i + 1]), larger(below[2 * i], below[2 * i + 1]));
        }
      }
    }
  });
}

void max_pool_gradient(int64_t maps, int64_t height, int64_t width, const float* x, const float* d_out, float* d_x) {
  const int64_t rows = height / 2, columns = width / 2;
  parallel(maps, std::max<int64_t>(1, (1 << 14) / (height * width)), [=](Parts& parts) {
    for (int64_t map; parts.next(&map);) {
      if (height % 2 || width % 2) std::fill_n(d_x + map * height * width, height * width, 0.0f);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t start = (map * height + 2 * row) * width;
        const float *above = x + start, *below = above + width;
        const float* from = d_out + (map * rows + row) * columns;
        float *to_above = d_x + start, *to_below = to_above + width;
        for (int64_t i = 0; i < columns; ++i) {
          const float a = above[2 * i], b = above[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
          const bool right = b > a, right_below = d > c;
          const bool second = (right_below ? d : c) > (right ? b : a);
          to_above[2 * i] = second || right ? 0 : from[i];
          to_above[2 * i + 1] = second || !right ? 0 : from[i];
          to_below[2 * i] = !second || right_below ? 0 : from[i];
          to_below[2 * i + 1] = !second || !right_below ? 0 : from[i];
        }
      }
    }
  });
}

}  // namespace ghostnet
