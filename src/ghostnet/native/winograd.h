// 3x3 convolutions by Winograd's F(2x2, 3x3): 16 in place of 36 multiplications for every patch of 2x2 results (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1). Inputs and weights are turned into
// the left and right sides of 16 products, whose sums over channels are turned into results.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "convolution.h"

namespace ghostnet {

constexpr int kProducts = 16;

// From one product to the next, for channels of so many elements: no power of two, so that the 16 of a patch fit into a
// cache.
inline int64_t product_step(int64_t channels, int64_t part) { return channels * part + 16; }

// The convolution of blocks of samples.
class Winograd {
 public:
  // `weight(o, i, tap)` gives each weight.
  template <typename Weight>
  Winograd(const Kernels& kernels, const Convolution& k, const Weight& weight)
      : kernels_(kernels),
        k_(k),
        patch_rows_(divide_up(k.map.out_height(), 2)),
        patch_columns_(divide_up(k.map.out_width(), 2)),
        rows_(std::min(patch_rows_, divide_up(std::max<int64_t>(kWindowPixels, kPatches / (k.in_channels + k.out_channels)),
                                              patch_columns_))),
        weights_(kProducts * k.out_channels * k.in_channels) {
    for (int64_t o = 0; o < k.out_channels; ++o) {
      for (int64_t i = 0; i < k.in_channels; ++i) {
        float* to = weights_.data() + packed_place(o, i, 0, k.out_channels, k.in_channels, 1);
        float rows[4][3];
        for (int x = 0; x < 3; ++x) {
          float column[4];
          right_sides(column, weight(o, i, x), weight(o, i, 3 + x), weight(o, i, 6 + x));
          for (int y = 0; y < 4; ++y) rows[y][x] = column[y];
        }
        for (int y = 0; y < 4; ++y) {
          float row[4];
          right_sides(row, rows[y][0], rows[y][1], rows[y][2]);
          for (int x = 0; x < 4; ++x) to[(y * 4 + x) * k.out_channels * k.in_channels] = row[x];
        }
      }
    }
  }

  // What a thread works in.
  struct Room {
    explicit Room(const Winograd& w)
        : products(kProducts * product_step(w.k_.in_channels, w.part())),
          sums(kProducts * product_step(w.k_.out_channels, w.part())) {}
    Scratch products, sums;
  };

  void run(Block& in, Block& out, Room& room) const {
    for (int64_t row = 0; row < patch_rows_; row += rows_) {
      run_rows(in, out, room, row, std::min(rows_, patch_rows_ - row));
    }
  }

 private:
  // Patches at a time, over channels: their products and sums stay in the second-level cache.
  static constexpr int64_t kPatches = 1024;

  // One row or column of the products' right sides.
  static void right_sides(float* to, float a, float b, float c) {
    to[0] = a;
    to[1] = (a + b + c) / 2;
    to[2] = (a - b + c) / 2;
    to[3] = c;
  }

  // Elements of a channel's patches that are worked on at a time.
  int64_t part() const { return rows_ * patch_columns_ * kTogether; }

  void run_rows(Block& in, Block& out, Room& room, int64_t first, int64_t rows) const {
    const int64_t ins = k_.in_channels, outs = k_.out_channels, row_part = patch_columns_ * kTogether;
    for (int64_t i = 0; i < ins; ++i) {
      for (int64_t row = 0; row < rows; ++row) {
        kernels_.to_products(room.products.get() + i * part() + row * row_part, product_step(ins, part()),
                             in.padded() + i * in.plane() + 2 * (first + row) * in.row(), in.row(), patch_columns_);
      }
    }
    for (int product = 0; product < kProducts; ++product) multiply(room, product, rows * patch_columns_);
    const int last = k_.map.out_width() % 2 == 0 ? 2 : 1;
    for (int64_t o = 0; o < outs; ++o) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t y = 2 * (first + row);
        kernels_.from_products(out.map() + o * out.plane() + y * out.row(), out.row(),
                               room.sums.get() + o * part() + row * row_part, product_step(outs, part()), patch_columns_,
                               y + 1 < k_.map.out_height() ? 2 : 1, last);
      }
    }
  }

  // One product of all patches, summed up over the channels: a convolution of one pixel.
  void multiply(Room& room, int product, int64_t patches) const {
    const int64_t ins = k_.in_channels, outs = k_.out_channels;
    const Window window{ins, 1, 1, part(), 0};
    const float* from = room.products.get() + product * product_step(ins, part());
    float* to = room.sums.get() + product * product_step(outs, part());
    const float* weights = weights_.data() + product * outs * ins;
    for (int64_t o = 0; o < outs; o += kWindowOuts) {
      const int count = static_cast<int>(std::min<int64_t>(kWindowOuts, outs - o));
      for (int64_t patch = 0; patch < patches; patch += kWindowPixels) {
        const int pixels = static_cast<int>(std::min<int64_t>(kWindowPixels, patches - patch));
        kernels_.window(to + o * part() + patch * kTogether, part(), from + patch * kTogether, weights + o * ins, window,
                        pixels, count);
      }
    }
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t patch_rows_, patch_columns_;
  const int64_t rows_;  // of patches, at a time
  std::vector<float> weights_;
};

// The gradient of the weights: sums over samples.
class WinogradGradient {
 public:
  WinogradGradient(const Kernels& kernels, const Convolution& k)
      : kernels_(kernels),
        k_(k),
        patch_rows_(divide_up(k.map.out_height(), 2)),
        patch_columns_(divide_up(k.map.out_width(), 2)),
        part_(std::max(patch_columns_, kPatches) * kTogether),
        x_(k.in_channels, k.map.height, k.map.width, k.map.pad_height, k.map.pad_width, 1),
        d_out_(k.out_channels, k.map.out_height(), k.map.out_width(), 0, 0, 1),
        left_(kProducts * product_step(k.in_channels, part_)),
        gradients_(kProducts * product_step(k.out_channels, part_)),
        sums_(kProducts * k.out_channels * k.in_channels) {}

  // Adds what so many samples give, a multiple of kTogether.
  void add(const float* x, const float* d_out, int64_t samples) {
    const int64_t sample = k_.in_channels * k_.map.height * k_.map.width;
    const int64_t out_sample = k_.out_channels * k_.map.out_height() * k_.map.out_width();
    for (int64_t n = 0; n < samples; n += kTogether) {
      x_.read(x + n * sample);
      d_out_.read(d_out + n * out_sample);
      for (int64_t row = 0; row < patch_rows_; ++row) {
        if ((held_ + patch_columns_) * kTogether > part_) multiply();
        hold(row);
      }
    }
  }

  // Adds all of it to the gradient.
  void finish(float* d_weight) {
    multiply();
    const int64_t size = k_.out_channels * k_.in_channels;
    for (int64_t weight = 0; weight < size; ++weight) {
      float rows[3][4];
      for (int x = 0; x < 4; ++x) {
        float column[4], three[3];
        for (int y = 0; y < 4; ++y) column[y] = sums_[(y * 4 + x) * size + weight];
        to_three(three, column);
        for (int y = 0; y < 3; ++y) rows[y][x] = three[y];
      }
      for (int y = 0; y < 3; ++y) {
        float three[3];
        to_three(three, rows[y]);
        for (int x = 0; x < 3; ++x) d_weight[weight * 9 + y * 3 + x] += three[x];
      }
    }
  }

 private:
  // Patches that are multiplied at a time.
  static constexpr int64_t kPatches = 32;

  static void to_three(float* to, const float* from) {
    const float sum = (from[1] + from[2]) / 2;
    to[0] = from[0] + sum;
    to[1] = (from[1] - from[2]) / 2;
    to[2] = from[3] + sum;
  }

  // Makes both sides of the products of a row of patches.
  void hold(int64_t row) {
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      kernels_.to_products(left_.get() + i * part_ + held_ * kTogether, product_step(k_.in_channels, part_),
                           x_.padded() + i * x_.plane() + 2 * row * x_.row(), x_.row(), patch_columns_);
    }
    for (int64_t o = 0; o < k_.out_channels; ++o) {
      kernels_.to_gradients(gradients_.get() + o * part_ + held_ * kTogether, product_step(k_.out_channels, part_),
                            d_out_.map() + o * d_out_.plane() + 2 * row * d_out_.row(), d_out_.row(), patch_columns_);
    }
    held_ += patch_columns_;
  }

  // Adds the products of the patches that are held.
  void multiply() {
    const int64_t ins = k_.in_channels, outs = k_.out_channels;
    for (int64_t product = 0; product < kProducts; ++product) {
      const float* left = left_.get() + product * product_step(ins, part_);
      const float* gradients = gradients_.get() + product * product_step(outs, part_);
      float* sums = sums_.data() + product * outs * ins;
      for (int64_t o = 0; o < outs; o += kGradientOuts) {
        const int some_outs = static_cast<int>(std::min<int64_t>(kGradientOuts, outs - o));
        for (int64_t i = 0; i < ins; i += kGradientTaps) {
          const int some_ins = static_cast<int>(std::min<int64_t>(kGradientTaps, ins - i));
          kernels_.multiply(sums + o * ins + i, ins, gradients + o * part_, left + i * part_, part_, held_, some_ins,
                            some_outs);
        }
      }
    }
    held_ = 0;
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t patch_rows_, patch_columns_;
  const int64_t part_;  // elements of a channel
  int64_t held_ = 0;    // patches
  Block x_, d_out_;
  Scratch left_, gradients_;
  std::vector<float> sums_;
};

}  // namespace ghostnet
