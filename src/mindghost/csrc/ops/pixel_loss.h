// Cross-entropy of the classes of every pixel.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace ghostnet {

// Logits (batch, classes, pixels), labels (batch, pixels), a weight for each class. A pixel whose label is `ignored` has
// no loss and no gradient. Of the others' loss, `smoothing` is the mean over all classes instead of the label's own.
struct PixelLoss {
  int64_t batch, classes, pixels;
  int32_t ignored;
  float smoothing;
  const float* logits;
  const int32_t* labels;
  const float* weights;
};

// The loss of every pixel, their sum, and the sum of the weights of the labels that count. Both give the same bits for
// any number of threads, and throw std::out_of_range for a label that is neither a class nor ignored.
void pixel_losses(const Kernels& kernels, const PixelLoss& k, float* losses, float* sum, float* weight);

// The gradient of the logits from that of the losses and of their sum.
void pixel_losses_gradient(const Kernels& kernels, const PixelLoss& k, const float* d_losses, float d_sum,
                           float* d_logits);

}  // namespace ghostnet
