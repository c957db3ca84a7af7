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
        phase_(rows_ * columns_) {
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
      for (int64_t x = 0; x < stride && x < map_.width; ++x) {
        const int64_t column = x + map_.pad_width, pixels = divide_up(map_.width - x, stride);
        float* phase = to + column % stride * rows_ * columns_ + column / stride * kLanes;
        copy_pixels(phase, kLanes, block + x * kLanes, stride * kLanes, pixels);
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
      for (int64_t x = 0; x < map_.stride; ++x) phase_gradient(d_x, weight, y, x, add);
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

  // The taps that make the gradient of a phase from that of the result.
  Taps taps_of_phase(const float* weight, int64_t phase_y, int64_t phase_x) {
    phase_offsets_.clear();
    phase_weights_.clear();
    for (int64_t y = phase_y; y < map_.kernel_height; y += map_.stride) {
      for (int64_t x = phase_x; x < map_.kernel_width; x += map_.stride) {
        phase_offsets_.push_back(-(y / map_.stride) * gradient_columns_ - x / map_.stride * kLanes);
        phase_weights_.push_back(weight[y * map_.kernel_width + x]);
      }
    }
    return {static_cast<int>(phase_offsets_.size()), phase_offsets_.data(), phase_weights_.data()};
  }

  // The part of the input's gradient that lies in one phase of the padded input.
  void phase_gradient(float* d_x, const float* weight, int64_t phase_y, int64_t phase_x, bool add) {
    const int64_t stride = map_.stride;
    // Rows and columns of the phase, of those that are not padding.
    const int64_t first_row = first(map_.pad_height, phase_y), first_column = first(map_.pad_width, phase_x);
    const int64_t rows = first(map_.pad_height + map_.height, phase_y) - first_row;
    const int64_t columns = first(map_.pad_width + map_.width, phase_x) - first_column;
    if (rows <= 0 || columns <= 0) return;
    const Taps taps = taps_of_phase(weight, phase_y, phase_x);
    const float* from = gradient() + first_row * gradient_columns_ + first_column * kLanes;
    if (stride == 1 && !add) {
      kernels_.correlate(d_x, rows, columns * kLanes, from, gradient_columns_, taps);
      return;
    }
    kernels_.correlate(phase_.get(), rows, columns * kLanes, from, gradient_columns_, taps);
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = phase_.get() + row * columns * kLanes;
      const int64_t y = (first_row + row) * stride + phase_y - map_.pad_height;
      float* to = d_x + (y * map_.width + first_column * stride + phase_x - map_.pad_width) * kLanes;
      if (add) {
        copy_pixels<true>(to, stride * kLanes, values, kLanes, columns);
      } else {
        copy_pixels(to, stride * kLanes, values, kLanes, columns);
      }
    }
  }

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
