// Dense convolutions of stride 1, and max pooling by windows of 2x2.
#pragma once

#include <cstdint>

#include "depthwise.h"
#include "kernels.h"

namespace ghostnet {

// A convolution's sizes: of `map`, the stride is 1. All tensors are float32 (N, C, H, W) without gaps, N a multiple of
// kTogether; weights are (out_channels, in_channels, kernel_height, kernel_width).
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

// The largest of every 2x2 pixels of `maps` maps; a last odd row or column is left out. The gradient goes to the first
// of equal ones, as in PyTorch and oneDNN.
void max_pool(int64_t maps, int64_t height, int64_t width, const float* x, float* out);
void max_pool_gradient(int64_t maps, int64_t height, int64_t width, const float* x, const float* d_out, float* d_x);

}  // namespace ghostnet
