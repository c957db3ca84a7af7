// Memory of a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "geometry.h"
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

// Memory that is not in use, for the next one to need as much: the system's takes longer, as it fills every page with
// zeros.
class Store {
 public:
  struct Memory {
    int64_t size = 0;
    std::unique_ptr<float[]> values;
  };

  // At least so many elements, and at most twice as many.
  Memory take(int64_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t best = unused_.size();
    for (size_t i = 0; i < unused_.size(); ++i) {
      const int64_t found = unused_[i].size;
      if (found >= size && found <= 2 * size && (best == unused_.size() || found < unused_[best].size)) best = i;
    }
    if (best == unused_.size()) return {size, std::unique_ptr<float[]>(new float[size])};
    std::swap(unused_[best], unused_.back());
    Memory memory = std::move(unused_.back());
    unused_.pop_back();
    return memory;
  }

  void give(Memory memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    unused_.push_back(std::move(memory));
  }

 private:
  std::mutex mutex_;
  std::vector<Memory> unused_;
};

inline Store& store() {
  static Store store;
  return store;
}

// Memory that is written before it is read, with the same room after the end: nothing is spent on filling it.
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    if (size > 0) memory_ = store().take(size + kSlack);
  }
  Scratch(Scratch&&) = default;
  ~Scratch() {
    if (memory_.values) store().give(std::move(memory_));
  }
  float* get() { return memory_.values.get(); }
  const float* get() const { return memory_.values.get(); }

 private:
  Store::Memory memory_;
};

// Integers at the beginning of a cache line, all 0.
template <typename Integer>
class Zeros {
 public:
  explicit Zeros(int64_t count) : room_(divide_up(count * sizeof(Integer), sizeof(float)) + 16) {
    const auto address = reinterpret_cast<uintptr_t>(room_.get());
    values_ = reinterpret_cast<Integer*>((address + 63) / 64 * 64);
    std::memset(values_, 0, count * sizeof(Integer));
  }
  Integer* get() { return values_; }
  const Integer* get() const { return values_; }

 private:
  Scratch room_;
  Integer* values_;
};

}  // namespace ghostnet
