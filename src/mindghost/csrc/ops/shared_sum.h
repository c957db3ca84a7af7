// Sums over the processes of one machine, through memory that they share.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels.h"

namespace ghostnet {

class SharedSum {
 public:
  // The size of the file that the processes share, to sum up so many values.
  static int64_t bytes(int ranks, int64_t values);

  // Maps a file of that size, all zeros at first, as one of `ranks` processes. Throws std::runtime_error.
  SharedSum(const char* path, int rank, int ranks, int64_t values);
  ~SharedSum();
  SharedSum(const SharedSum&) = delete;

  // outs[i] = the sum of ins[i] over all processes, in the order of their ranks: the same bits everywhere. Every process
  // has to call it, and waits for the others. False, at once, for more values than there is room for.
  bool sum(const Kernels& kernels, int count, const float* const* ins, const int64_t* sizes, float* const* outs);

 private:
  struct Meeting {
    std::atomic<uint32_t> arrived, round;
  };

  float* slot(int rank) { return values_ + rank * capacity_; }
  float* result() { return slot(ranks_); }
  void wait_for_all();

  const int rank_, ranks_;
  const int64_t capacity_;
  Meeting* meeting_;
  float* values_;  // a slot for each rank's values, then one for the result
};

}  // namespace ghostnet
