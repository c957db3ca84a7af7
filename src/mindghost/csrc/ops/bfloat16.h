// Dense convolutions of stride 1 whose products are in bfloat16, and whose sums are in float32.
#pragma once

#include "convolution.h"
#include "kernels.h"
#include "tiles.h"

namespace ghostnet {

// As their namesakes in convolution.h, of inputs, weights and gradients that are rounded to bfloat16; for any batch.
void convolve(const Tiles& tiles, const Convolution& sizes, const float* x, const float* weight, float* out);
void convolve_input_gradient(const Tiles& tiles, const Convolution& sizes, const float* d_out, const float* weight,
                             float* d_x);
void convolve_weight_gradient(const Tiles& tiles, const Kernels& kernels, const Convolution& sizes, const float* x,
                              const float* d_out, float* d_weight);

}  // namespace ghostnet
