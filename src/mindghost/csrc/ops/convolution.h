// Dense convolutions of stride 1.
#pragma once

#include <cstdint>

#include "geometry.h"
#include "kernels.h"

namespace ghostnet {

// A convolution's sizes: of `map`, the stride is 1. All tensors are float32 (N, C, H, W) without gaps; weights are
// (out_channels, in_channels, kernel_height, kernel_width). Small maps should come in whole blocks of kTogether samples:
// what is lacking is computed, too.
struct Convolution {
  int64_t batch, in_channels, out_channels;
  Geometry map;
};

// The convolution that gives the gradient of the input: that of the result's gradient with the kernel turned by half a turn.
inline Convolution turned(const Convolution& k) {
  Convolution found{k.batch, k.out_channels, k.in_channels, k.map};
  found.map.height = k.map.out_height();
  found.map.width = k.map.out_width();
  found.map.pad_height = k.map.kernel_height - 1 - k.map.pad_height;
  found.map.pad_width = k.map.kernel_width - 1 - k.map.pad_width;
  return found;
}

// weight(o, i, tap) of the convolution, and of that one.
inline auto plain_weight(const Convolution& k, const float* weight) {
  return [weight, ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width](int64_t o, int64_t i, int64_t tap) {
    return weight[(o * ins + i) * taps + tap];
  };
}
inline auto turned_weight(const Convolution& k, const float* weight) {
  return [weight, ins = k.in_channels, taps = k.map.kernel_height * k.map.kernel_width](int64_t i, int64_t o, int64_t tap) {
    return weight[(o * ins + i) * taps + taps - 1 - tap];
  };
}

// All give the same bits for any number of threads.
void convolve(const Kernels& kernels, const Convolution& sizes, const float* x, const float* weight, float* out);
void convolve_input_gradient(const Kernels& kernels, const Convolution& sizes, const float* d_out, const float* weight,
                             float* d_x);
void convolve_weight_gradient(const Kernels& kernels, const Convolution& sizes, const float* x, const float* d_out,
                              float* d_weight);

}  // namespace ghostnet
