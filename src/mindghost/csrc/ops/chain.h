// What happens to each channel on its own between two ordinary convolutions of a Ghost network.
#pragma once

#include <cstdint>

#include "depthwise.h"
#include "kernels.h"

namespace ghostnet {

// A batch norm's settings and, for each channel: weights, running statistics before and after, and what the gradient
// needs of the batch (mean, 1 / sqrt(variance + eps)).
struct Norm {
  float eps, momentum;
  bool relu;
  const float *gamma, *beta, *running_mean, *running_variance;
  float *new_mean, *new_variance;
  float *mean, *inverse;       // written by forward, read by backward
  float *d_gamma, *d_beta;     // written by backward
};

// x -> [norm -> ] [depthwise convolution -> [norm]] -> out, + residual.
//
// With `first`, out holds the normalised x, too: before what is made of it (a Ghost module). Every channel of x makes
// `multiplier` channels. What lies beyond `out_channels` is left out. All maps are float32 (N, C, H, W) without gaps.
struct Chain {
  int64_t batch, channels, multiplier, out_channels;
  bool first, convolution, second;
  bool running;         // backward: mean and inverse are running statistics, whatever x is
  bool frozen;          // backward: and no gradient of weights is wanted; they are zeros
  Geometry map;         // kernel, stride and padding are unused without `convolution`
  Norm norm1, norm2;
  const float *x, *weight, *residual;
  float* out;

  const float* d_out;
  float *d_x, *d_weight;
};

// All give the same bits for any number of threads: every channel is the work of one.
void forward(const Kernels& kernels, const Chain& chain);
void backward(const Kernels& kernels, const Chain& chain);

// The forward pass with running statistics in place of the batch's, which are not computed.
void evaluate(const Kernels& kernels, const Chain& chain);

// The kernels for the machine that this runs on.
const Kernels& kernels();

}  // namespace ghostnet
