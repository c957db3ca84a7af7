// The update of all weights of a network by gradient descent with momentum.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace ghostnet {

// A tensor of weights, and what its update reads and writes.
struct Weights {
  int64_t size;
  const float* gradient;
  float *weight, *moment;
  float* starts;  // null, or MindSpore's `stat`: the moment starts afresh where its first element is not 0; set to 0
  float decay;    // of the weights, added to the gradient
  float rate;     // that they learn at
};

// The sum of squares of all tensors' elements times `factor`.
double square_sum(const Kernels& kernels, const std::vector<Weights>& all, float factor);

// One update of all of them; `step.decay` and `step.rate` are those of each tensor.
void update(const Kernels& kernels, const std::vector<Weights>& all, MomentumStep step);

}  // namespace ghostnet
