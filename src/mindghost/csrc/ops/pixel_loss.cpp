#include "pixel_loss.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "buffers.h"
#include "geometry.h"
#include "thread_pool.h"

namespace ghostnet {
namespace {

// Pixels that are worked on together: all classes of theirs stay in the first-level cache.
constexpr int64_t kBlock = 256;

// A thread's work on blocks of pixels.
class PixelBlock {
 public:
  PixelBlock(const Kernels& kernels, const PixelLoss& k)
      : kernels_(kernels), k_(k), room_(4 * kBlock), exponentials_(k.classes * kBlock) {
    for (int64_t c = 0; c < k.classes; ++c) all_weights_ += k.weights[c];
  }

  // Takes up the pixels of sample n from `first` on. Returns whether all of their labels are classes or ignored.
  bool begin(int64_t n, int64_t first) {
    count_ = std::min(kBlock, k_.pixels - first);
    logits_ = k_.logits + n * k_.classes * k_.pixels + first;
    labels_ = k_.labels + n * k_.pixels + first;
    for (int64_t p = 0; p < count_; ++p) {
      if (labels_[p] != k_.ignored && (labels_[p] < 0 || labels_[p] >= k_.classes)) return false;
    }
    kernels_.soft_max(top(), total(), exponentials_.get(), kBlock, logits_, k_.pixels, k_.classes, count_);
    return true;
  }

  // Writes the losses. Adds them, and the weights of the labels, up.
  void losses(float* to, double* sum, double* weight) {
    kernels_.logarithm(total(), total(), count_);
    float* others = room_.get() + 2 * kBlock;  // of the classes that smoothing counts
    std::fill_n(others, count_, 0.0f);
    if (k_.smoothing > 0) {
      for (int64_t c = 0; c < k_.classes; ++c) {
        const float share = k_.smoothing / k_.classes * k_.weights[c];
        const float* x = logits_ + c * k_.pixels;
        for (int64_t p = 0; p < count_; ++p) others[p] += share * (top()[p] - x[p]);
      }
    }
    const float share = k_.smoothing / k_.classes * all_weights_;
    for (int64_t p = 0; p < count_; ++p) {
      if (labels_[p] == k_.ignored) {
        to[p] = 0;
        continue;
      }
      const float own = k_.weights[labels_[p]] * (1 - k_.smoothing);
      const float below = top()[p] - logits_[labels_[p] * k_.pixels + p];
      to[p] = own * (total()[p] + below) + share * total()[p] + others[p];
      *sum += to[p];
      *weight += k_.weights[labels_[p]];
    }
  }

  void gradient(const float* d_losses, float d_sum, float* to) {
    float *factors = room_.get() + 2 * kBlock, *gradients = room_.get() + 3 * kBlock;
    for (int64_t p = 0; p < count_; ++p) {
      const bool counts = labels_[p] != k_.ignored;
      gradients[p] = counts ? d_losses[p] + d_sum : 0;
      const float own = counts ? k_.weights[labels_[p]] * (1 - k_.smoothing) : 0;
      factors[p] = gradients[p] * (own + k_.smoothing / k_.classes * all_weights_) / total()[p];
    }
    for (int64_t c = 0; c < k_.classes; ++c) {
      const float share = k_.smoothing / k_.classes * k_.weights[c];
      const float* exponentials = exponentials_.get() + c * kBlock;
      float* d_x = to + c * k_.pixels;
      for (int64_t p = 0; p < count_; ++p) d_x[p] = factors[p] * exponentials[p] - share * gradients[p];
    }
    for (int64_t p = 0; p < count_; ++p) {
      if (labels_[p] == k_.ignored) continue;
      to[labels_[p] * k_.pixels + p] -= gradients[p] * k_.weights[labels_[p]] * (1 - k_.smoothing);
    }
  }

 private:
  float* top() { return room_.get(); }             // the largest logit of each pixel
  float* total() { return room_.get() + kBlock; }  // the sum of the exponentials of what is below it

  const Kernels& kernels_;
  const PixelLoss& k_;
  Scratch room_, exponentials_;
  float all_weights_ = 0;
  int64_t count_ = 0;
  const float* logits_ = nullptr;
  const int32_t* labels_ = nullptr;
};

// Calls work(block, sample, first pixel, number of the block) for all blocks of pixels.
template <typename Work>
void over_blocks(const Kernels& kernels, const PixelLoss& k, const Work& work) {
  const int64_t blocks = divide_up(k.pixels, kBlock);
  std::atomic<bool> fit{true};
  parallel(k.batch * blocks, std::max<int64_t>(1, (1 << 14) / (kBlock * k.classes)), [&](Parts& parts) {
    PixelBlock block(kernels, k);
    for (int64_t i; parts.next(&i);) {
      const int64_t n = i / blocks, first = i % blocks * kBlock;
      if (block.begin(n, first)) {
        work(block, n, first, i);
      } else {
        fit = false;
      }
    }
  });
  if (!fit) throw std::out_of_range("a label that is no class");
}

}  // namespace

void pixel_losses(const Kernels& kernels, const PixelLoss& k, float* losses, float* sum, float* weight) {
  const int64_t blocks = k.batch * divide_up(k.pixels, kBlock);
  std::vector<double> sums(blocks), weights(blocks);
  over_blocks(kernels, k, [&](PixelBlock& block, int64_t n, int64_t first, int64_t i) {
    block.losses(losses + n * k.pixels + first, &sums[i], &weights[i]);
  });
  double all = 0, all_weights = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    all += sums[i];
    all_weights += weights[i];
  }
  *sum = static_cast<float>(all);
  *weight = static_cast<float>(all_weights);
}

void pixel_losses_gradient(const Kernels& kernels, const PixelLoss& k, const float* d_losses, float d_sum,
                           float* d_logits) {
  over_blocks(kernels, k, [&](PixelBlock& block, int64_t n, int64_t first, int64_t) {
    block.gradient(d_losses + n * k.pixels + first, d_sum, d_logits + n * k.classes * k.pixels + first);
  });
}

}  // namespace ghostnet
