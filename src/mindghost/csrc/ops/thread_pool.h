// Threads that share out channels. Who computes which channel never changes what is computed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

namespace ghostnet {

// Indices for one thread, handed out in parts.
class Parts {
 public:
  Parts(std::atomic<int64_t>* taken, int64_t count, int64_t part) : taken_(taken), count_(count), part_(part) {}

  // Whether there is another index, and which.
  bool next(int64_t* index) {
    if (next_ == end_) {
      next_ = taken_->fetch_add(part_);
      end_ = std::min(next_ + part_, count_);
      if (next_ >= count_) {
        next_ = end_ = 0;
        return false;
      }
    }
    *index = next_++;
    return true;
  }

 private:
  std::atomic<int64_t>* taken_;
  const int64_t count_, part_;
  int64_t next_ = 0, end_ = 0;
};

// Threads to use from now on, the caller's own among them.
void set_threads(int count);
int threads();

// Calls task once in each thread, with parts of [0, count) for all of them together, and returns when it is done. A
// call that finds the threads busy with another one does all by itself.
void parallel(int64_t count, int64_t part, const std::function<void(Parts&)>& task);

// Calls task(i) for every map of so many elements, in parts of some 64 KB.
template <typename Task>
void each_map(int64_t maps, int64_t size, const Task& task) {
  parallel(maps, std::max<int64_t>(1, (1 << 14) / size), [&](Parts& parts) {
    for (int64_t i; parts.next(&i);) task(i);
  });
}

}  // namespace ghostnet
