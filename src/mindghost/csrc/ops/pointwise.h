// Convolutions with a kernel of one pixel: products of matrices, whose columns are the pixels of all samples.
#pragma once

#include "convolution.h"
#include "kernels.h"

namespace ghostnet {

// Whether a convolution is one of these.
bool is_pointwise(const Convolution& sizes);

// As their namesakes in convolution.h, for any batch.
void pointwise(const Kernels& kernels, const Convolution& sizes, const float* x, const float* weight, float* out);
void pointwise_input_gradient(const Kernels& kernels, const Convolution& sizes, const float* d_out, const float* weight,
                              float* d_x);
void pointwise_weight_gradient(const Kernels& kernels, const Convolution& sizes, const float* x, const float* d_out,
                               float* d_weight);

}  // namespace ghostnet
