// Depthwise convolutions and their gradients, map by map.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "geometry.h"
#include "kernels.h"

namespace ghostnet {

// A depthwise convolution of kLanes maps at a time, as sums of shifted maps. A pixel of such a block is kLanes values
// that lie side by side, one of each map.
//
// The padded input is split into stride x stride phases (rows and columns that are equal modulo the stride), so that
// every tap of the kernel reads elements that lie side by side, whatever the stride.
template <int kLanes>
class Depthwise {
 public:
  Depthwise(const Kernels& kernels, const Geometry& map)
      : kernels_(kernels),
        map_(map),
        rows_(divide_up(map.height + 2 * map.pad_height, map.stride)),
        columns_(up_to(divide_up(map.width + 2 * map.pad_width, map.stride) * kLanes, 8)),
        top_((map.kernel_height - 1) / map.stride),
        left_((map.kernel_width - 1) / map.stride * kLanes),
        gradient_rows_(rows_ + top_),
        gradient_columns_(up_to(left_ + columns_, 8)),
        padded_(map.stride * map.stride * rows_ * columns_),
        gradient_(gradient_rows_ * gradient_columns_),
        phase_(2 * rows_ * columns_ + kSlack) {
    for (int64_t y = 0; y < map.kernel_height; ++y) {
      for (int64_t x = 0; x < map.kernel_width; ++x) {
        const int64_t phase = y % map.stride * map.stride + x % map.stride;
        offsets_.push_back(phase * rows_ * columns_ + y / map.stride * columns_ + x / map.stride * kLanes);
      }
    }
    phase_offsets_.reserve(offsets_.size());
    phase_weights_.reserve(offsets_.size());
  }

  // Takes the block that `forward` and `weight_gradient` read.
  void set_input(const float* block) {
    const int64_t stride = map_.stride;
    for (int64_t y = 0; y < map_.height; ++y, block += map_.width * kLanes) {
      const int64_t row = y + map_.pad_height;
      float* to = padded_.get() + (row % stride * stride * rows_ + row / stride) * columns_;
      if (stride == 1) {
        copy(to + map_.pad_width * kLanes, block, map_.width * kLanes);
        continue;
      }
      const auto phase_of = [&](int64_t x) {
        const int64_t column = x + map_.pad_width;
        return to + column % stride * rows_ * columns_ + column / stride * kLanes;
      };
      if (takes_turns()) {
        kernels_.split(phase_of(0), phase_of(1), block, map_.width);
        continue;
      }
      for (int64_t x = 0; x < stride && x < map_.width; ++x) {
        const int64_t pixels = divide_up(map_.width - x, stride);
        copy_pixels(phase_of(x), kLanes, block + x * kLanes, stride * kLanes, pixels);
      }
    }
  }

  // out: out_height x out_width pixels, and kSlack elements after them.
  void forward(float* out, const float* weight) {
    const Taps taps{static_cast<int>(offsets_.size()), offsets_.data(), weight};
    kernels_.correlate(out, map_.out_height(), map_.out_width() * kLanes, padded_.get(), columns_, taps);
  }

  // Takes the gradient of the result, which `weight_gradient` and `input_gradient` read.
  void set_gradient(const float* d_out) {
    const int64_t size = map_.out_width() * kLanes;
    for (int64_t y = 0; y < map_.out_height(); ++y) copy(gradient() + y * gradient_columns_, d_out + y * size, size);
  }

  // Adds these maps' part to the gradient of each weight.
  void weight_gradient(double* sums) {
    const Taps taps{static_cast<int>(offsets_.size()), offsets_.data(), nullptr};
    kernels_.correlate_gradient(sums, gradient(), gradient_columns_, map_.out_height(), map_.out_width() * kLanes,
                                padded_.get(), columns_, taps);
  }

  // d_x: height x width pixels, and kSlack elements after them; added to what is there if `add`.
  void input_gradient(float* d_x, const float* weight, bool add) {
    for (int64_t y = 0; y < map_.stride; ++y) {
      if (takes_turns() && !add) {
        rows_gradient(d_x, weight, y);
        continue;
      }
      for (int64_t x = 0; x < map_.stride; ++x) phase_gradient(d_x, weight, phase(y, x), add);
    }
  }

 private:
  static void copy(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

  // Copies pixels that lie so many elements apart; adds them to what is there if kAdd.
  template <bool kAdd = false>
  static void copy_pixels(float* to, int64_t to_step, const float* from, int64_t from_step, int64_t pixels) {
    for (int64_t i = 0; i < pixels; ++i, to += to_step, from += from_step) {
      float pixel[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) pixel[lane] = kAdd ? to[lane] + from[lane] : from[lane];
      std::memcpy(to, pixel, sizeof(pixel));
    }
  }

  float* gradient() { return gradient_.get() + top_ * gradient_columns_ + left_; }

  // Whether the elements of a row belong to two phases by turns.
  bool takes_turns() const { return kLanes == 1 && map_.stride == 2; }

  // A phase of the padded input: its rows and columns of those that are not padding.
  struct Phase {
    int64_t y, x, first_row, rows, first_column, columns;
  };

  Phase phase(int64_t y, int64_t x) const {
    const int64_t row = first(map_.pad_height, y), column = first(map_.pad_width, x);
    return {y, x, row, first(map_.pad_height + map_.height, y) - row, column,
            first(map_.pad_width + map_.width, x) - column};
  }

  // The row of the input that a row of a phase is.
  int64_t row(const Phase& of, int64_t row) const { return (of.first_row + row) * map_.stride + of.y - map_.pad_height; }

  // The gradient of what lies in a phase.
  void correlate(float* to, const float* weight, const Phase& of) {
    phase_offsets_.clear();
    phase_weights_.clear();
    for (int64_t y = of.y; y < map_.kernel_height; y += map_.stride) {
      for (int64_t x = of.x; x < map_.kernel_width; x += map_.stride) {
        phase_offsets_.push_back(-(y / map_.stride) * gradient_columns_ - x / map_.stride * kLanes);
        phase_weights_.push_back(weight[y * map_.kernel_width + x]);
      }
    }
    const Taps taps{static_cast<int>(phase_offsets_.size()), phase_offsets_.data(), phase_weights_.data()};
    const float* from = gradient() + of.first_row * gradient_columns_ + of.first_column * kLanes;
    kernels_.correlate(to, of.rows, of.columns * kLanes, from, gradient_columns_, taps);
  }

  // The part of the input's gradient that lies in one phase.
  void phase_gradient(float* d_x, const float* weight, const Phase& of, bool add) {
    const int64_t stride = map_.stride;
    if (of.rows <= 0 || of.columns <= 0) return;
    if (stride == 1 && !add) {
      correlate(d_x, weight, of);
      return;
    }
    correlate(phase_.get(), weight, of);
    for (int64_t y = 0; y < of.rows; ++y) {
      const float* values = phase_.get() + y * of.columns * kLanes;
      float* to = d_x + (row(of, y) * map_.width + of.first_column * stride + of.x - map_.pad_width) * kLanes;
      if (add) {
        copy_pixels<true>(to, stride * kLanes, values, kLanes, of.columns);
      } else {
        copy_pixels(to, stride * kLanes, values, kLanes, of.columns);
      }
    }
  }

  // The part that lies in the two phases whose elements take turns in every second row.
  void rows_gradient(float* d_x, const float* weight, int64_t phase_y) {
    const Phase first = phase(phase_y, map_.pad_width % 2), second = phase(phase_y, 1 - map_.pad_width % 2);
    if (first.rows <= 0) return;
    float* values = phase_.get();
    float* others = values + rows_ * columns_ + kSlack;
    correlate(values, weight, first);
    if (second.columns > 0) correlate(others, weight, second);
    for (int64_t y = 0; y < first.rows; ++y) {
      kernels_.join(d_x + row(first, y) * map_.width, values + y * first.columns, others + y * second.columns, map_.width);
    }
  }

  static int64_t up_to(int64_t value, int64_t multiple) { return divide_up(value, multiple) * multiple; }

  // The smallest index in a phase whose position is not before `position`.
  int64_t first(int64_t position, int64_t phase) const {
    return position > phase ? divide_up(position - phase, map_.stride) : 0;
  }

  const Kernels& kernels_;
  const Geometry map_;
  const int64_t rows_, columns_;  // of a phase; columns, here and below, in elements, not pixels
  const int64_t top_, left_;      // zeros around the gradient
  const int64_t gradient_rows_, gradient_columns_;
  std::vector<int64_t> offsets_, phase_offsets_;
  std::vector<float> phase_weights_;
  Buffer padded_, gradient_;
  Scratch phase_;
};

}  // namespace ghostnet
