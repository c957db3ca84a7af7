#include "convolution.h"

#include <algorithm>
#include <vector>

#include "blocks.h"
#include "thread_pool.h"
#include "winograd.h"

namespace ghostnet {
namespace {

// Groups of samples whose parts of the weights' gradient are summed one after the other. Their number depends on the
// sizes alone, not on that of the threads; where maps are small, a group needs many samples to be worth its sums.
constexpr int64_t kLeastGroups = 2, kMostGroups = 8, kPatchesOfGroup = 128;

// Patches of the results of all samples.
int64_t patches(const Convolution& k) {
  return k.batch * divide_up(k.map.out_height(), kPatch) * divide_up(k.map.out_width(), kPatch);
}

// Weights that stay in the second-level cache while all pixels pass by.
constexpr int64_t kWeights = 1 << 15;
// Pixels of the gradient that stay in the first-level cache while all input channels pass by: some rows.
constexpr int64_t kBand = 32;

// Every pixel of a block, for the outputs from `first` to `end`. `in` is padded, `out` is not.
void convolve_outs(const Kernels& kernels, const Convolution& k, Block& in, Block& out, const float* weights,
                   int64_t first, int64_t end) {
  const int64_t height = k.map.out_height(), width = k.map.out_width();
  const int64_t size = k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const Window window{k.in_channels, k.map.kernel_height, k.map.kernel_width, in.plane(), in.row()};
  const int64_t at_once = kernels.at_once.window_outs;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; x += kWindowPixels) {
      const int pixels = static_cast<int>(std::min<int64_t>(kWindowPixels, width - x));
      const float* from = in.padded() + y * in.row() + x * kTogether;
      float* to = out.map() + y * out.row() + x * kTogether;
      for (int64_t o = first; o < end; o += at_once) {
        const int outs = static_cast<int>(std::min(at_once, end - o));
        kernels.window(to + o * out.plane(), out.plane(), from, weights + o * size, window, pixels, outs);
      }
    }
  }
}

// Every pixel and output of a block.
void convolve_block(const Kernels& kernels, const Convolution& k, Block& in, Block& out, const float* weights) {
  const int64_t size = k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const int64_t at_once = kernels.at_once.window_outs;
  const int64_t part = std::max<int64_t>(1, kWeights / (size * at_once)) * at_once;
  for (int64_t o = 0; o < k.out_channels; o += part) {
    convolve_outs(kernels, k, in, out, weights, o, std::min(o + part, k.out_channels));
  }
}

// Runs work(in, out, count) for all blocks of samples, up to `together` of them at a time, `in` padded; start() makes the
// work of each thread.
template <typename Start>
void over_blocks(const Convolution& k, const float* x, float* out, int64_t together, const Start& start) {
  const int64_t height = k.map.out_height(), width = k.map.out_width(), blocks = k.batch / kTogether;
  const int64_t in_block = kTogether * k.in_channels * k.map.height * k.map.width;
  const int64_t out_block = kTogether * k.out_channels * height * width;
  parallel(divide_up(blocks, together), 1, [&](Parts& parts) {
    std::vector<Block> from(together, Block(k.in_channels, k.map.height, k.map.width, k.map.pad_height, k.map.pad_width,
                                            up_to_patch(height), up_to_patch(width)));
    std::vector<Block> to(together, Block(k.out_channels, height, width, 0, 0));
    auto work = start();
    for (int64_t part; parts.next(&part);) {
      const int64_t first = part * together, count = std::min(together, blocks - first);
      for (int64_t i = 0; i < count; ++i) from[i].read(x + (first + i) * in_block);
      work(from, to, count);
      for (int64_t i = 0; i < count; ++i) to[i].write(out + (first + i) * out_block);
    }
  });
}

// Below so many channels, and of the weights' gradient so many patches, making the products takes longer than fewer of
// them save.
constexpr int64_t kFewChannels = 16, kFewPatches = 32;

bool by_winograd(const Convolution& k) {
  return k.map.kernel_height == 3 && k.map.kernel_width == 3 && std::min(k.in_channels, k.out_channels) >= kFewChannels;
}

bool gradient_by_winograd(const Convolution& k) {
  return by_winograd(k) && patches(k) >= kFewPatches;
}

template <typename Weight>
void convolve_all(const Kernels& kernels, const Convolution& k, const float* x, const Weight& weight, float* out) {
  const int64_t taps = k.map.kernel_height * k.map.kernel_width;
  if (by_winograd(k)) {
    const Winograd algorithm(kernels, k, weight);
    // Two threads at least should find work.
    const int64_t together = std::clamp<int64_t>(k.batch / kTogether / 2, 1, algorithm.together());
    over_blocks(k, x, out, together, [&] {
      return [&, room = Winograd::Room(algorithm)](std::vector<Block>& from, std::vector<Block>& to, int64_t count) mutable {
        algorithm.run(from, to, count, room);
      };
    });
    return;
  }
  const auto weights = packed(k.out_channels, k.in_channels, taps, kernels.at_once.window_outs, weight);
  over_blocks(k, x, out, 1, [&] {
    return [&](std::vector<Block>& from, std::vector<Block>& to, int64_t) {
      convolve_block(kernels, k, from[0], to[0], weights.data());
    };
  });
}

// A thread's part of the weights' gradient: sums over samples.
class WeightGradient {
 public:
  WeightGradient(const Kernels& kernels, const Convolution& k)
      : kernels_(kernels),
        k_(k),
        size_(k.in_channels * k.map.kernel_height * k.map.kernel_width),
        x_(k.in_channels, k.map.height, k.map.width, k.map.pad_height, k.map.pad_width),
        d_out_(k.out_channels, k.map.out_height(), k.map.out_width(), 0, 0),
        sums_(size_ * kGradientOuts * kTogether) {}

  // Adds what so many samples give, a multiple of kTogether.
  void add(const float* x, const float* d_out, int64_t samples, float* d_weight) {
    const int64_t sample = k_.in_channels * k_.map.height * k_.map.width;
    const int64_t out_sample = k_.out_channels * k_.map.out_height() * k_.map.out_width();
    for (int64_t n = 0; n < samples; n += kTogether) {
      x_.read(x + n * sample);
      d_out_.read(d_out + n * out_sample);
      for (int64_t o = 0; o < k_.out_channels; o += kGradientOuts) add_outs(o, d_weight);
    }
  }

 private:
  // Adds what the block gives to the weights of some outputs.
  void add_outs(int64_t o, float* d_weight) {
    const int outs = static_cast<int>(std::min<int64_t>(kGradientOuts, k_.out_channels - o));
    const int64_t height = k_.map.out_height(), band = std::max<int64_t>(1, kBand / k_.map.out_width());
    std::fill_n(sums_.get(), size_ * outs * kTogether, 0.0f);
    for (int64_t y = 0; y < height; y += band) add_rows(o, outs, y, std::min(band, height - y));
    const float* sum = sums_.get();
    for (int64_t i = 0; i < size_; ++i) {
      for (int out = 0; out < outs; ++out, sum += kTogether) {
        float total = 0;
        for (int lane = 0; lane < kTogether; ++lane) total += sum[lane];
        d_weight[(o + out) * size_ + i] += total;
      }
    }
  }

  void add_rows(int64_t o, int outs, int64_t y, int64_t rows) {
    const GradientWindow window{rows, k_.map.out_width(), d_out_.plane(), d_out_.row(), x_.row()};
    const float* gradient = d_out_.map() + o * d_out_.plane() + y * d_out_.row();
    float* sums = sums_.get();
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      for (int64_t ky = 0; ky < k_.map.kernel_height; ++ky) {
        const float* in = x_.padded() + i * x_.plane() + (y + ky) * x_.row();
        for (int64_t kx = 0; kx < k_.map.kernel_width; kx += kGradientTaps) {
          const int taps = static_cast<int>(std::min<int64_t>(kGradientTaps, k_.map.kernel_width - kx));
          kernels_.window_gradient(sums, gradient, in + kx * kTogether, window, taps, outs);
          sums += taps * outs * kTogether;
        }
      }
    }
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t size_;  // weights of an output
  Block x_, d_out_;
  Scratch sums_;
};

}  // namespace

void convolve(const Kernels& kernels, const Convolution& k, const float* x, const float* weight, float* out) {
  const int64_t ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width;
  convolve_all(
      kernels, k, x, [=](int64_t o, int64_t i, int64_t tap) { return weight[(o * ins + i) * taps + tap]; }, out);
}

void convolve_input_gradient(const Kernels& kernels, const Convolution& k, const float* d_out, const float* weight,
                             float* d_x) {
  // The convolution of the gradient with the kernel turned by half a turn.
  const int64_t ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width;
  Convolution turned{k.batch, k.out_channels, ins, k.map};
  turned.map.height = k.map.out_height();
  turned.map.width = k.map.out_width();
  turned.map.pad_height = k.map.kernel_height - 1 - k.map.pad_height;
  turned.map.pad_width = k.map.kernel_width - 1 - k.map.pad_width;
  const auto turned_weight = [=](int64_t i, int64_t o, int64_t tap) {
    return weight[(o * ins + i) * taps + taps - 1 - tap];
  };
  convolve_all(kernels, turned, d_out, turned_weight, d_x);
}

void convolve_weight_gradient(const Kernels& kernels, const Convolution& k, const float* x, const float* d_out,
                              float* d_weight) {
  if (gradient_by_winograd(k)) return WinogradGradient(kernels, k).run(x, d_out, d_weight);
  const int64_t sample = k.in_channels * k.map.height * k.map.width;
  const int64_t out_sample = k.out_channels * k.map.out_height() * k.map.out_width();
  const int64_t size = k.out_channels * k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const int64_t blocks = k.batch / kTogether;
  const int64_t wanted = std::clamp(patches(k) / kPatchesOfGroup, kLeastGroups, kMostGroups);
  const int64_t each = divide_up(blocks, wanted), groups = divide_up(blocks, each);
  std::vector<float> sums(groups * size);
  parallel(groups, 1, [&](Parts& parts) {
    for (int64_t group; parts.next(&group);) {
      const int64_t first = group * each * kTogether, samples = std::min(each * kTogether, k.batch - first);
      const float *from = x + first * sample, *gradients = d_out + first * out_sample;
      float* to = sums.data() + group * size;
      WeightGradient(kernels, k).add(from, gradients, samples, to);
    }
  });
  std::copy_n(sums.data(), size, d_weight);
  for (int64_t group = 1; group < groups; ++group) kernels.add(d_weight, sums.data() + group * size, size);
}

}  // namespace ghostnet
