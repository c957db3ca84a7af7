#include "pointwise.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "blocks.h"
#include "buffers.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

// Pixels that are worked on at a time: their values of all channels stay in the second-level cache.
constexpr int64_t kTile = 128;
// Pieces of work that all threads should find enough in, whatever their number is.
constexpr int64_t kPieces = 16;
// Up to so many channels are read where they are; of more, the pixels of a tile are put together first.
constexpr int64_t kFewChannels = 32;

// Pixels of one sample that follow each other, and their place in a tile.
struct Run {
  int64_t sample, first, count, place;
};

// The pixels of all samples in a row, as tiles.
class Pixels {
 public:
  explicit Pixels(const Convolution& k) : size_(k.map.height * k.map.width), count_(k.batch * size_) {}

  int64_t size() const { return size_; }  // of a map
  int64_t tiles() const { return divide_up(count_, kTile); }
  int64_t of_tile(int64_t tile) const { return std::min(kTile, count_ - tile * kTile); }
  // Whether runs begin and end at whole vectors of pixels.
  bool aligned() const { return size_ % kTogether == 0; }

  template <typename Visit>
  void each_run(int64_t tile, const Visit& visit) const {
    const int64_t begin = tile * kTile, end = begin + of_tile(tile);
    for (int64_t pixel = begin; pixel < end;) {
      const int64_t first = pixel % size_, count = std::min(size_ - first, end - pixel);
      visit(Run{pixel / size_, first, count, pixel - begin});
      pixel += count;
    }
  }

 private:
  const int64_t size_, count_;
};

void copy(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

// A thread's share of the products of a matrix and all pixels: (rows, ins) x (ins, pixels) -> (rows, pixels).
class Product {
 public:
  Product(const Kernels& kernels, const Pixels& pixels, int64_t ins, int64_t outs, const float* weights, const float* x,
          float* out)
      : kernels_(kernels),
        pixels_(pixels),
        ins_(ins),
        outs_(outs),
        in_place_(pixels.aligned() && ins <= kFewChannels),
        weights_(weights),
        x_(x),
        out_(out),
        inputs_(in_place_ ? 0 : ins * kTile),
        results_(pixels.aligned() ? 0 : kernels.at_once.window_outs * kTile) {}

  // Some outputs of a tile; `first` is a multiple of those that are computed at once.
  void run(int64_t tile, int64_t first, int64_t end) {
    if (!in_place_) read(tile);
    for (int64_t o = first; o < end; o += kernels_.at_once.window_outs) {
      const int outs = static_cast<int>(std::min<int64_t>(kernels_.at_once.window_outs, end - o));
      if (pixels_.aligned()) {
        pixels_.each_run(tile, [&](const Run& run) { multiply(run, o, outs); });
      } else {
        multiply({0, 0, divide_up(pixels_.of_tile(tile), kTogether) * kTogether, 0}, o, outs);
        write(tile, o, outs);
      }
    }
  }

 private:
  void read(int64_t tile) {
    pixels_.each_run(tile, [&](const Run& run) {
      const float* from = x_ + run.sample * ins_ * pixels_.size() + run.first;
      for (int64_t i = 0; i < ins_; ++i) copy(inputs_.get() + i * kTile + run.place, from + i * pixels_.size(), run.count);
    });
    // What is multiplied beyond the last pixel has to be numbers that were written.
    const int64_t last = pixels_.of_tile(tile), whole = divide_up(last, kTogether) * kTogether;
    for (int64_t i = 0; i < ins_ && last < whole; ++i) std::fill_n(inputs_.get() + i * kTile + last, whole - last, 0.0f);
  }

  void multiply(const Run& run, int64_t o, int outs) {
    const float* from = inputs_.get() + run.place;
    float* to = results_.get() + run.place;
    int64_t in_row = kTile, out_row = kTile;
    if (in_place_) {
      in_row = pixels_.size();
      from = x_ + run.sample * ins_ * in_row + run.first;
    }
    if (pixels_.aligned()) {
      out_row = pixels_.size();
      to = out_ + (run.sample * outs_ + o) * out_row + run.first;
    }
    const Window window{ins_, 1, 1, in_row, 0};
    for (int64_t at = 0; at < run.count; at += kWindowPixels * kTogether) {
      const int vectors = static_cast<int>(std::min<int64_t>(kWindowPixels, (run.count - at) / kTogether));
      kernels_.window(to + at, out_row, from + at, weights_ + o * ins_, window, vectors, outs);
    }
  }

  void write(int64_t tile, int64_t o, int outs) {
    pixels_.each_run(tile, [&](const Run& run) {
      float* to = out_ + (run.sample * outs_ + o) * pixels_.size() + run.first;
      for (int i = 0; i < outs; ++i) copy(to + i * pixels_.size(), results_.get() + i * kTile + run.place, run.count);
    });
  }

  const Kernels& kernels_;
  const Pixels& pixels_;
  const int64_t ins_, outs_;
  const bool in_place_;
  const float *weights_, *x_;
  float* out_;
  Scratch inputs_, results_;
};

template <typename Weight>
void multiply_all(const Kernels& kernels, const Pixels& pixels, int64_t ins, int64_t outs, const float* x,
                  const Weight& weight, float* out) {
  const int64_t at_once = kernels.at_once.window_outs;
  const auto weights = packed(outs, ins, 1, at_once, weight);
  // Of few tiles, several pieces of work each.
  const int64_t wanted = divide_up(kPieces, pixels.tiles());
  const int64_t each = divide_up(divide_up(outs, wanted), at_once) * at_once, pieces = divide_up(outs, each);
  parallel(pixels.tiles() * pieces, 1, [&](Parts& parts) {
    Product product(kernels, pixels, ins, outs, weights.data(), x, out);
    for (int64_t part; parts.next(&part);) {
      const int64_t first = part % pieces * each;
      product.run(part / pieces, first, std::min(first + each, outs));
    }
  });
}

// A tile of a tensor with kTogether channels side by side.
class Channels {
 public:
  Channels(const Kernels& kernels, const Pixels& pixels, int64_t channels, const float* values)
      : kernels_(kernels),
        pixels_(pixels),
        channels_(channels),
        from_(values),
        to_(divide_up(channels, kTogether) * kPlane),
        zeros_(kTile, 0.0f) {}

  // From one block of channels to the next: no power of two, so that they do not push each other out of a cache.
  static constexpr int64_t kPlane = kTile * kTogether + 16;

  const float* get() const { return to_.get(); }

  void read(int64_t tile) {
    pixels_.each_run(tile, [&](const Run& run) {
      for (int64_t c = 0; c < channels_; c += kTogether) {
        const float* rows[kTogether];
        for (int64_t l = 0; l < kTogether; ++l) {
          const float* row = from_ + (run.sample * channels_ + c + l) * pixels_.size() + run.first;
          rows[l] = c + l < channels_ ? row : zeros_.data();
        }
        kernels_.interleave(to_.get() + c / kTogether * kPlane + run.place * kTogether, rows, run.count);
      }
    });
  }

 private:
  const Kernels& kernels_;
  const Pixels& pixels_;
  const int64_t channels_;
  const float* from_;
  Scratch to_;
  const std::vector<float> zeros_;
};

// Adds what a tile gives to the gradient of all weights, (outs, ins in whole vectors).
void add_gradient(const Kernels& kernels, const Convolution& k, const Channels& x, const Channels& d_out, int64_t pixels,
                  float* sums) {
  const int64_t vectors = divide_up(k.in_channels, kTogether), row = vectors * kTogether;
  const int64_t some = kernels.at_once.multiply_vectors, outs = kernels.at_once.multiply_outs;
  for (int64_t i = 0; i < vectors; i += some) {
    const int count = static_cast<int>(std::min(some, vectors - i));
    for (int64_t o = 0; o < k.out_channels; o += outs) {
      const float* gradients = d_out.get() + o / kTogether * Channels::kPlane + o % kTogether;
      kernels.multiply(sums + o * row + i * kTogether, row, gradients, x.get() + i * Channels::kPlane, Channels::kPlane,
                       pixels, count, static_cast<int>(std::min(outs, k.out_channels - o)));
    }
  }
}

}  // namespace

bool is_pointwise(const Convolution& k) {
  return k.map.kernel_height == 1 && k.map.kernel_width == 1 && k.map.pad_height == 0 && k.map.pad_width == 0;
}

void pointwise(const Kernels& kernels, const Convolution& k, const float* x, const float* weight, float* out) {
  const auto of = [=, ins = k.in_channels](int64_t o, int64_t i, int64_t) { return weight[o * ins + i]; };
  multiply_all(kernels, Pixels(k), k.in_channels, k.out_channels, x, of, out);
}

void pointwise_input_gradient(const Kernels& kernels, const Convolution& k, const float* d_out, const float* weight,
                              float* d_x) {
  const auto of = [=, ins = k.in_channels](int64_t i, int64_t o, int64_t) { return weight[o * ins + i]; };
  multiply_all(kernels, Pixels(k), k.out_channels, k.in_channels, d_out, of, d_x);
}

void pointwise_weight_gradient(const Kernels& kernels, const Convolution& k, const float* x, const float* d_out,
                               float* d_weight) {
  const Pixels pixels(k);
  const int64_t row = divide_up(k.in_channels, kTogether) * kTogether, size = k.out_channels * row;
  // Groups of tiles are summed up one after the other. Their number depends on the sizes alone, not on that of threads.
  const int64_t tiles = pixels.tiles(), each = divide_up(tiles, std::min(tiles, kPieces)), groups = divide_up(tiles, each);
  Scratch sums(groups * size);
  parallel(groups, 1, [&](Parts& parts) {
    Channels inputs(kernels, pixels, k.in_channels, x), gradients(kernels, pixels, k.out_channels, d_out);
    for (int64_t group; parts.next(&group);) {
      float* to = sums.get() + group * size;
      std::fill_n(to, size, 0.0f);
      for (int64_t tile = group * each; tile < std::min((group + 1) * each, tiles); ++tile) {
        inputs.read(tile);
        gradients.read(tile);
        add_gradient(kernels, k, inputs, gradients, pixels.of_tile(tile), to);
      }
    }
  });
  for (int64_t group = 1; group < groups; ++group) kernels.add(sums.get(), sums.get() + group * size, size);
  for (int64_t o = 0; o < k.out_channels; ++o) copy(d_weight + o * k.in_channels, sums.get() + o * row, k.in_channels);
}

}  // namespace ghostnet
