// 3x3 convolutions by Winograd's F(4x4, 3x3): 36 in place of 144 multiplications for every patch of 4x4 results (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.2). Inputs and weights are turned into
// the left and right sides of 36 products, whose sums over channels are turned into results.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "convolution.h"
#include "thread_pool.h"

namespace ghostnet {

// From one product to the next, for so many elements: no power of two, so that the 36 of a patch fit into a cache.
inline int64_t product_step(int64_t elements) { return elements + 16; }

// Zeros that make a map's size a whole number of patches.
inline int64_t up_to_patch(int64_t size) { return divide_up(size, kPatch) * kPatch - size; }

// The convolution of blocks of samples.
class Winograd {
 public:
  // `weight(o, i, tap)` gives each weight.
  template <typename Weight>
  Winograd(const Kernels& kernels, const Convolution& k, const Weight& weight)
      : kernels_(kernels),
        k_(k),
        patch_rows_(divide_up(k.map.out_height(), kPatch)),
        patch_columns_(divide_up(k.map.out_width(), kPatch)),
        lines_(divide_up(std::max<int64_t>(kWindowPixels, kPatches / (k.in_channels + k.out_channels)), patch_columns_)),
        weights_(kProducts * product_step(k.out_channels * k.in_channels)) {
    const int64_t at_once = kernels.at_once.window_outs;
    parallel(divide_up(k.out_channels, at_once), 1, [&](Parts& parts) {
      for (int64_t part; parts.next(&part);) {
        const int64_t first = part * at_once;
        for (int64_t o = first; o < std::min(first + at_once, k.out_channels); ++o) make_right_sides(o, weight);
      }
    });
  }

  // Blocks that fill a pass over the weights together: few of large maps.
  int64_t together() const { return divide_up(kWindowPixels, patch_rows_ * patch_columns_); }

  // What a thread works in.
  struct Room {
    explicit Room(const Winograd& w)
        : products(kProducts * w.step(w.k_.in_channels)), sums(kProducts * w.step(w.k_.out_channels)) {}
    Scratch products, sums;
  };

  void run(std::vector<Block>& in, std::vector<Block>& out, int64_t blocks, Room& room) const {
    const int64_t lines = blocks * patch_rows_;
    for (int64_t line = 0; line < lines; line += lines_) {
      run_lines(in, out, room, line, std::min(line + lines_, lines));
    }
  }

 private:
  // Patches at a time, times channels: their products and sums stay in the second-level cache.
  static constexpr int64_t kPatches = 512;

  template <typename Weight>
  void make_right_sides(int64_t o, const Weight& weight) {
    for (int64_t i = 0; i < k_.in_channels; ++i) {
      float* to = weights_.get() + packed_place(o, i, 0, k_.out_channels, k_.in_channels, 1,
                                                kernels_.at_once.window_outs);
      float columns[3][kPatchInputs];
      for (int x = 0; x < 3; ++x) right_sides(columns[x], weight(o, i, x), weight(o, i, 3 + x), weight(o, i, 6 + x));
      for (int y = 0; y < kPatchInputs; ++y) {
        float row[kPatchInputs];
        right_sides(row, columns[0][y], columns[1][y], columns[2][y]);
        for (int x = 0; x < kPatchInputs; ++x) {
          to[(y * kPatchInputs + x) * product_step(k_.out_channels * k_.in_channels)] = row[x];
        }
      }
    }
  }

  // One row or column of the products' right sides.
  static void right_sides(float* to, float a, float b, float c) {
    const float near = a + c / 2, odd_near = kNear * b, far = a + 2 * c, odd_far = kFar * b;
    to[0] = a;
    to[1] = -(near + odd_near) / 1.5f;
    to[2] = -(near - odd_near) / 1.5f;
    to[3] = (far + odd_far) / 6;
    to[4] = (far - odd_far) / 6;
    to[5] = c;
  }

  // Products and sums are in groups of kWindowPixels patches, those of a group's channels one after the other: the order
  // in which they are multiplied.
  static int64_t place(int64_t channel, int64_t patch, int64_t channels) {
    return (patch / kWindowPixels * channels + channel) * kWindowPixels * kTogether + patch % kWindowPixels * kTogether;
  }

  // From one product of so many channels to the next.
  int64_t step(int64_t channels) const {
    return product_step(divide_up(lines_ * patch_columns_, kWindowPixels) * kWindowPixels * kTogether * channels);
  }

  // Calls visit(patch, block, y, x) for all patches of some lines: rows of patches, those of all blocks in a row.
  template <typename Visit>
  void each_patch(int64_t first, int64_t end, const Visit& visit) const {
    int64_t patch = 0;
    for (int64_t line = first; line < end; ++line) {
      for (int64_t x = 0; x < patch_columns_; ++x) {
        visit(patch++, line / patch_rows_, line % patch_rows_ * kPatch, x * kPatch);
      }
    }
  }

  void run_lines(std::vector<Block>& in, std::vector<Block>& out, Room& room, int64_t first, int64_t end) const {
    const int64_t ins = k_.in_channels, outs = k_.out_channels;
    for (int64_t i = 0; i < ins; ++i) {
      each_patch(first, end, [&](int64_t patch, int64_t block, int64_t y, int64_t x) {
        const float* from = in[block].get() + i * in[block].plane() + y * in[block].row() + x * kTogether;
        kernels_.to_products(room.products.get() + place(i, patch, ins), step(ins), from, in[block].row());
      });
    }
    for (int product = 0; product < kProducts; ++product) multiply(room, product, (end - first) * patch_columns_);
    const int64_t height = k_.map.out_height(), width = k_.map.out_width();
    for (int64_t o = 0; o < outs; ++o) {
      each_patch(first, end, [&](int64_t patch, int64_t block, int64_t y, int64_t x) {
        float* to = out[block].get() + o * out[block].plane() + y * out[block].row() + x * kTogether;
        kernels_.from_products(to, out[block].row(), room.sums.get() + place(o, patch, outs), step(outs),
                               static_cast<int>(std::min<int64_t>(kPatch, height - y)),
                               static_cast<int>(std::min<int64_t>(kPatch, width - x)));
      });
    }
  }

  // One product of all patches, summed up over the channels: a convolution of one pixel.
  void multiply(Room& room, int product, int64_t patches) const {
    const int64_t ins = k_.in_channels, outs = k_.out_channels, at_once = kernels_.at_once.window_outs;
    const Window window{ins, 1, 1, kWindowPixels * kTogether, 0};
    const float* from = room.products.get() + product * step(ins);
    float* to = room.sums.get() + product * step(outs);
    const float* weights = weights_.get() + product * product_step(outs * ins);
    for (int64_t patch = 0; patch < patches; patch += kWindowPixels) {
      const int pixels = static_cast<int>(std::min<int64_t>(kWindowPixels, patches - patch));
      for (int64_t o = 0; o < outs; o += at_once) {
        const int count = static_cast<int>(std::min(at_once, outs - o));
        kernels_.window(to + place(o, patch, outs), window.plane, from + place(0, patch, ins), weights + o * ins, window,
                        pixels, count);
      }
    }
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t patch_rows_, patch_columns_;
  const int64_t lines_;  // at a time
  Scratch weights_;
};

// The gradient of the weights: sums over samples, with channels side by side.
class WinogradGradient {
 public:
  WinogradGradient(const Kernels& kernels, const Convolution& k)
      : kernels_(kernels),
        k_(k),
        patch_rows_(divide_up(k.map.out_height(), kPatch)),
        patch_columns_(divide_up(k.map.out_width(), kPatch)),
        ins_(divide_up(k.in_channels, kTogether)),
        outs_(divide_up(k.out_channels, kTogether)),
        lines_(lines_at_once(patch_rows_, patch_columns_)),
        plane_(lines_ * patch_columns_ * kTogether),
        left_(kProducts * product_step(ins_ * plane_)),
        gradients_(kProducts * product_step(outs_ * plane_)),
        sums_(kProducts * sums_step()) {}

  void run(const float* x, const float* d_out, float* d_weight) {
    const int64_t lines = k_.batch * patch_rows_;
    for (int64_t first = 0; first < lines; first += lines_) {
      const int64_t end = std::min(first + lines_, lines);
      make_sides(x, d_out, first, end);
      parallel(kProducts, 1, [&](Parts& parts) {
        for (int64_t product; parts.next(&product);) {
          if (first == 0) std::fill_n(sums_.get() + product * sums_step(), sums_step(), 0.0f);
          multiply(product, (end - first) * patch_columns_);
        }
      });
    }
    parallel(k_.out_channels, 1, [&](Parts& parts) {
      for (int64_t o; parts.next(&o);) finish(o, d_weight + o * k_.in_channels * 9);
    });
  }

 private:
  // Patches that are multiplied at a time.
  static constexpr int64_t kPatches = 128;

  // From the sums of one product to those of the next.
  int64_t sums_step() const { return product_step(k_.out_channels * ins_ * kTogether); }

  // Rows of patches that are multiplied at a time: of whole samples, or of a part of a large one.
  static int64_t lines_at_once(int64_t rows, int64_t columns) {
    const int64_t samples = kPatches / (rows * columns);
    return samples > 0 ? samples * rows : std::max<int64_t>(1, kPatches / columns);
  }

  // Both sides of the products of some lines: rows of patches, those of all samples in a row.
  void make_sides(const float* x, const float* d_out, int64_t first, int64_t end) {
    const int64_t rows = std::min(end - first, patch_rows_) * kPatch, columns = patch_columns_ * kPatch;
    parallel(ins_ + outs_, 1, [&](Parts& parts) {
      Block in(kernels_, 1, rows + 2, columns + 2), gradient(kernels_, 1, rows, columns);
      for (int64_t i; parts.next(&i);) {
        if (i < ins_) {
          const Maps maps{x, k_.in_channels, k_.map.height, k_.map.width, k_.map.pad_height, k_.map.pad_width};
          make_side(in, maps, i * kTogether, first, end, left_.get() + i * plane_, product_step(ins_ * plane_),
                    kernels_.to_products);
        } else {
          const Maps maps{d_out, k_.out_channels, k_.map.out_height(), k_.map.out_width(), 0, 0};
          make_side(gradient, maps, (i - ins_) * kTogether, first, end, gradients_.get() + (i - ins_) * plane_,
                    product_step(outs_ * plane_), kernels_.to_gradients);
        }
      }
    });
  }

  // A tensor, and the padding of its maps.
  struct Maps {
    const float* values;
    int64_t channels, height, width, pad_height, pad_width;
  };

  // One side, of kTogether channels from `channel` on: product i of each patch goes to to[i * step].
  template <typename Transform>
  void make_side(Block& block, const Maps& maps, int64_t channel, int64_t first, int64_t end, float* to, int64_t step,
                 const Transform& transform) const {
    for (int64_t line = first; line < end;) {
      // As many lines as there are of one sample.
      const int64_t n = line / patch_rows_, top = line % patch_rows_, lines = std::min(patch_rows_ - top, end - line);
      Place<const float> places[kTogether];
      for (int64_t l = 0; l < kTogether; ++l) {
        const bool there = channel + l < maps.channels;
        places[l] = {there ? maps.values + (n * maps.channels + channel + l) * maps.height * maps.width : nullptr,
                     top * kPatch - maps.pad_height, -maps.pad_width};
      }
      block.read(places, maps.height, maps.width);
      for (int64_t row = 0; row < lines; ++row) {
        const float* from = block.get() + row * kPatch * block.row();
        for (int64_t column = 0; column < patch_columns_; ++column, from += kPatch * kTogether, to += kTogether) {
          transform(to, step, from, block.row());
        }
      }
      line += lines;
    }
  }

  // Adds one product of so many patches.
  void multiply(int64_t product, int64_t patches) {
    const float* left = left_.get() + product * product_step(ins_ * plane_);
    const float* gradients = gradients_.get() + product * product_step(outs_ * plane_);
    float* sums = sums_.get() + product * sums_step();
    const int64_t vectors = kernels_.at_once.multiply_vectors, outs = kernels_.at_once.multiply_outs;
    for (int64_t i = 0; i < ins_; i += vectors) {
      const int some_ins = static_cast<int>(std::min(vectors, ins_ - i));
      for (int64_t o = 0; o < k_.out_channels; o += outs) {
        const int some_outs = static_cast<int>(std::min(outs, k_.out_channels - o));
        kernels_.multiply(sums + (o * ins_ + i) * kTogether, ins_ * kTogether,
                          gradients + o / kTogether * plane_ + o % kTogether, left + i * plane_, plane_, patches, some_ins,
                          some_outs);
      }
    }
  }

  // The gradient of an output's weights, from the sums of its products.
  void finish(int64_t o, float* d_weight) const {
    for (int64_t i = 0; i < k_.in_channels; ++i, d_weight += 9) {
      const float* sum = sums_.get() + o * ins_ * kTogether + i;
      float rows[3][kPatchInputs];
      for (int x = 0; x < kPatchInputs; ++x) {
        float column[kPatchInputs], three[3];
        for (int y = 0; y < kPatchInputs; ++y) column[y] = sum[(y * kPatchInputs + x) * sums_step()];
        to_three(three, column);
        for (int y = 0; y < 3; ++y) rows[y][x] = three[y];
      }
      for (int y = 0; y < 3; ++y) to_three(d_weight + y * 3, rows[y]);
    }
  }

  // The right sides' gradients to those of the three weights of a row or column.
  static void to_three(float* to, const float* from) {
    const float near = (from[1] + from[2]) / 1.5f, odd_near = kNear * (from[1] - from[2]) / 1.5f;
    const float far = (from[3] + from[4]) / 6, odd_far = kFar * (from[3] - from[4]) / 6;
    to[0] = from[0] - near + far;
    to[1] = odd_far - odd_near;
    to[2] = 2 * far - near / 2 + from[5];
  }

  const Kernels& kernels_;
  const Convolution& k_;
  const int64_t patch_rows_, patch_columns_;
  const int64_t ins_, outs_;  // channels, in blocks of kTogether
  const int64_t lines_;       // at a time
  const int64_t plane_;       // elements of such a block of channels
  Scratch left_, gradients_, sums_;
};

}  // namespace ghostnet
