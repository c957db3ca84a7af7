// Memory of a thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"

namespace ghostnet {

// Zeros, with room for whole vectors after the end.
class Buffer {
 public:
  explicit Buffer(int64_t size) : values_(size > 0 ? size + kSlack : 0, 0.0f) {}
  float* get() { return values_.data(); }

 private:
  std::vector<float> values_;
};

// Memory that is written before it is read: nothing is spent on filling it.
class Scratch {
 public:
  explicit Scratch(int64_t size) : values_(size > 0 ? new float[size + kSlack] : nullptr) {}
  float* get() { return values_.get(); }

 private:
  std::unique_ptr<float[]> values_;
};

}  // namespace ghostnet
