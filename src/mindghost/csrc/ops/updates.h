// The update of all weights of a network, in one pass over memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace ghostnet {

// A tensor of weights, and what its update reads and writes.
struct Weights {
  int64_t size;
  const float* gradient;
  float *weight, *first, *second;  // and the optimizer's one or two numbers of each weight; `second` may be null
  float decay;                     // of the weights
  float rate;                      // that they learn at
};

// Tensors that follow others.
struct Average {
  int64_t size;
  float* average;
  const float* value;
};

// Every average moved towards its value by `share` of their difference.
void update_averages(const Kernels& kernels, const std::vector<Average>& all, float share);

// The sum of squares of all tensors' elements times `factor`.
double square_sum(const Kernels& kernels, const std::vector<Weights>& all, float factor);

// Updates of all of them; `decay` and `rate` of a step are those of each tensor.

// Momentum: `first` is the moment. `second` is null, or MindSpore's `stat`: the moment starts afresh where its first element
// is not 0; set to 0.
void update_momentum(const Kernels& kernels, const std::vector<Weights>& all, MomentumStep step);

// RMSprop: `first` is the mean square, `second` the moment.
void update_rmsprop(const Kernels& kernels, const std::vector<Weights>& all, RmspropStep step);

// AdamW: `first` is the mean of the gradients, `second` that of their squares.
void update_adam(const Kernels& kernels, const std::vector<Weights>& all, AdamStep step);

// LAMB (You et al., 2020): the same, with the rate of a tensor times its length by that of its direction, at most `most`,
// and 1 where one of the two is 0.
void update_lamb(const Kernels& kernels, const std::vector<Weights>& all, AdamStep step, float most);

}  // namespace ghostnet
