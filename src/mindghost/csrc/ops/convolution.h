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

// All give the same bits for any number of threads.
void convolve(const Kernels& kernels, const Convolution& sizes, const float* x, const float* weight, float* out);
void convolve_input_gradient(const Kernels& kernels, const Convolution& sizes, const float* d_out, const float* weight,
                             float* d_x);
void convolve_weight_gradient(const Kernels& kernels, const Convolution& sizes, const float* x, const float* d_out,
                              float* d_weight);

}  // namespace ghostnet
