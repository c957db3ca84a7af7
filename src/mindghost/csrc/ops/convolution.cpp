#include "convolution.h"

#include <algorithm>
#include <vector>

#include "blocks.h"
#include "thread_pool.h"
#include "winograd.h"

namespace ghostnet {
namespace {

// Groups of blocks whose parts of the weights' gradient are summed one after the other. Their number depends on the
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

// Pixels of a map that is worked on whole. Of larger ones parts are: columns at most, and elements of a block, so that it
// stays in the second-level cache, but no fewer rows than repay the ones around them.
constexpr int64_t kWhole = 32 * 32, kColumns = 64, kElements = 1 << 17, kLeastRows = 8;

// A size as equal parts, whole patches each but for the last one, of which none is larger than `most` makes it.
int64_t equal_parts(int64_t size, int64_t most) {
  if (size <= most) return size;
  return divide_up(divide_up(size, divide_up(size, most)), kPatch) * kPatch;
}

// The results of a convolution in equal parts, kTogether of which make a block, whatever samples they are of. Parts at one
// place follow each other, sample by sample.
class Tiles {
 public:
  explicit Tiles(const Convolution& k) : k_(k), rows_(k.map.out_height()), columns_(k.map.out_width()) {
    if (rows_ * columns_ > kWhole) {
      columns_ = equal_parts(columns_, kColumns);
      const int64_t row = (k.in_channels + k.out_channels) * (columns_ + k.map.kernel_width - 1) * kTogether;
      // Of a few samples there should be as many parts as a block has, too.
      const int64_t wanted = divide_up(kTogether, k.batch * divide_up(k.map.out_width(), columns_));
      rows_ = equal_parts(rows_, std::max(kLeastRows, std::min(kElements / row, divide_up(rows_, wanted))));
    }
    across_ = divide_up(k.map.out_width(), columns_);
    count_ = k.batch * across_ * divide_up(k.map.out_height(), rows_);
  }

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t blocks() const { return divide_up(count_, kTogether); }

  // The convolution of a part on its own, which needs no padding: it has pixels of its neighbours around it.
  Convolution of_part() const {
    const Geometry& map = k_.map;
    const int64_t height = rows_ + map.kernel_height - 1, width = columns_ + map.kernel_width - 1;
    return {kTogether, k_.in_channels, k_.out_channels, {height, width, map.kernel_height, map.kernel_width, 1, 0, 0}};
  }

  // The places of a block's parts in maps of so many channels, `up` and `left` of where the results are.
  template <typename Float>
  void places(int64_t block, Float* maps, int64_t sample, int64_t up, int64_t left, Place<Float>* to) const {
    for (int64_t l = 0; l < kTogether; ++l) {
      const int64_t tile = block * kTogether + l, place = tile / k_.batch;
      to[l] = {tile < count_ ? maps + tile % k_.batch * sample : nullptr, place / across_ * rows_ - up,
               place % across_ * columns_ - left};
    }
  }

  void read_inputs(int64_t block, const float* x, Block& to) const {
    Place<const float> at[kTogether];
    places(block, x, k_.in_channels * k_.map.height * k_.map.width, k_.map.pad_height, k_.map.pad_width, at);
    to.read(at, k_.map.height, k_.map.width);
  }

  void read_results(int64_t block, const float* out, Block& to) const {
    Place<const float> at[kTogether];
    places(block, out, k_.out_channels * k_.map.out_height() * k_.map.out_width(), 0, 0, at);
    to.read(at, k_.map.out_height(), k_.map.out_width());
  }

  void write_results(int64_t block, Block& from, float* out) const {
    Place<float> at[kTogether];
    places(block, out, k_.out_channels * k_.map.out_height() * k_.map.out_width(), 0, 0, at);
    from.write(at, k_.map.out_height(), k_.map.out_width());
  }

 private:
  const Convolution& k_;
  int64_t rows_, columns_;  // of a part
  int64_t across_, count_;  // parts side by side, and all of them
};

// Every pixel of a block, for the outputs from `first` to `end`.
void convolve_outs(const Kernels& kernels, const Convolution& k, Block& in, Block& out, const float* weights,
                   int64_t first, int64_t end) {
  const int64_t height = k.map.out_height(), width = k.map.out_width();
  const int64_t size = k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const Window window{k.in_channels, k.map.kernel_height, k.map.kernel_width, in.plane(), in.row()};
  const int64_t at_once = kernels.at_once.window_outs;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; x += kWindowPixels) {
      const int pixels = static_cast<int>(std::min<int64_t>(kWindowPixels, width - x));
      const float* from = in.get() + y * in.row() + x * kTogether;
      float* to = out.get() + y * out.row() + x * kTogether;
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

// Runs work(in, out, count) for all blocks, up to `together` of them at a time; start() makes the work of each thread.
// With `patches`, inputs go on to what whole patches of results are made of.
template <typename Start>
void over_blocks(const Kernels& kernels, const Convolution& k, const Tiles& tiles, const float* x, float* out,
                 int64_t together, bool patches, const Start& start) {
  const int64_t blocks = tiles.blocks();
  const Geometry map = tiles.of_part().map;
  const int64_t more_rows = patches ? up_to_patch(tiles.rows()) : 0;
  const int64_t more_columns = patches ? up_to_patch(tiles.columns()) : 0;
  parallel(divide_up(blocks, together), 1, [&](Parts& parts) {
    std::vector<Block> from, to;
    for (int64_t i = 0; i < together; ++i) {
      from.emplace_back(kernels, k.in_channels, map.height + more_rows, map.width + more_columns);
      to.emplace_back(kernels, k.out_channels, tiles.rows(), tiles.columns());
    }
    auto work = start();
    for (int64_t part; parts.next(&part);) {
      const int64_t first = part * together, count = std::min(together, blocks - first);
      for (int64_t i = 0; i < count; ++i) tiles.read_inputs(first + i, x, from[i]);
      work(from, to, count);
      for (int64_t i = 0; i < count; ++i) tiles.write_results(first + i, to[i], out);
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
  const Tiles tiles(k);
  const Convolution part = tiles.of_part();
  if (by_winograd(k)) {
    const Winograd algorithm(kernels, part, weight);
    // Two threads at least should find work.
    const int64_t together = std::clamp<int64_t>(tiles.blocks() / 2, 1, algorithm.together());
    over_blocks(kernels, k, tiles, x, out, together, true, [&] {
      return [&, room = Winograd::Room(algorithm)](std::vector<Block>& from, std::vector<Block>& to, int64_t count) mutable {
        algorithm.run(from, to, count, room);
      };
    });
    return;
  }
  const auto weights = packed(k.out_channels, k.in_channels, taps, kernels.at_once.window_outs, weight);
  over_blocks(kernels, k, tiles, x, out, 1, false, [&] {
    return [&](std::vector<Block>& from, std::vector<Block>& to, int64_t) {
      convolve_block(kernels, part, from[0], to[0], weights.data());
    };
  });
}

// A thread's part of the weights' gradient: sums over blocks.
class WeightGradient {
 public:
  WeightGradient(const Kernels& kernels, const Convolution& k, const Tiles& tiles)
      : kernels_(kernels),
        k_(k),
        tiles_(tiles),
        size_(k.in_channels * k.map.kernel_height * k.map.kernel_width),
        x_(kernels, k.in_channels, tiles.of_part().map.height, tiles.of_part().map.width),
        d_out_(kernels, k.out_channels, tiles.rows(), tiles.columns()),
        sums_(size_ * kGradientOuts * kTogether) {}

  // Adds what some blocks give.
  void add(const float* x, const float* d_out, int64_t first, int64_t end, float* d_weight) {
    for (int64_t block = first; block < end; ++block) {
      tiles_.read_inputs(block, x, x_);
      tiles_.read_results(block, d_out, d_out_);
      for (int64_t o = 0; o < k_.out_channels; o += kGradientOuts) add_outs(o, d_weight);
    }
  }

 private:
  // Adds what the block gives to the weights of some outputs.
  void add_outs(int64_t o, float* d_weight) {
    const int outs = static_cast<int>(std::min<int64_t>(kGradientOuts, k_.out_channels - o));
    const int64_t height = tiles_.rows(), band = std::max<int64_t>(1, kBand / tiles_.columns());
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
    const GradientWindow window{rows, tiles_.columns(), d_out_.plane(), d_out_.row(), x_.row()};
    const float* gradient = d_out_.get() + o * d_out_.plane() + y * d_out_.row();
    float* sums = sums_.get();
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      for (int64_t ky = 0; ky < k_.map.kernel_height; ++ky) {
        const float* in = x_.get() + i * x_.plane() + (y + ky) * x_.row();
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
  const Tiles& tiles_;
  const int64_t size_;  // weights of an output
  Block x_, d_out_;
  Scratch sums_;
};

}  // namespace

void convolve(const Kernels& kernels, const Convolution& k, const float* x, const float* weight, float* out) {
  convolve_all(kernels, k, x, plain_weight(k, weight), out);
}

void convolve_input_gradient(const Kernels& kernels, const Convolution& k, const float* d_out, const float* weight,
                             float* d_x) {
  convolve_all(kernels, turned(k), d_out, turned_weight(k, weight), d_x);
}

void convolve_weight_gradient(const Kernels& kernels, const Convolution& k, const float* x, const float* d_out,
                              float* d_weight) {
  if (gradient_by_winograd(k)) return WinogradGradient(kernels, k).run(x, d_out, d_weight);
  const Tiles tiles(k);
  const int64_t size = k.out_channels * k.in_channels * k.map.kernel_height * k.map.kernel_width;
  const int64_t blocks = tiles.blocks();
  const int64_t wanted = std::clamp(patches(k) / kPatchesOfGroup, kLeastGroups, kMostGroups);
  const int64_t each = divide_up(blocks, wanted), groups = divide_up(blocks, each);
  std::vector<float> sums(groups * size);
  parallel(groups, 1, [&](Parts& parts) {
    WeightGradient gradient(kernels, k, tiles);
    for (int64_t group; parts.next(&group);) {
      gradient.add(x, d_out, group * each, std::min((group + 1) * each, blocks), sums.data() + group * size);
    }
  });
  std::copy_n(sums.data(), size, d_weight);
  for (int64_t group = 1; group < groups; ++group) kernels.add(d_weight, sums.data() + group * size, size);
}

}  // namespace ghostnet
