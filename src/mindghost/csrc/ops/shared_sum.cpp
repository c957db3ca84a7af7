#include "shared_sum.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace ghostnet {
namespace {

constexpr int64_t kHead = 4096;  // bytes before the values
constexpr int kSpins = 1000;     // before a waiting process sleeps
constexpr auto kNap = std::chrono::microseconds(100);

}  // namespace

int64_t SharedSum::bytes(int ranks, int64_t values) {
  return kHead + (ranks + 1) * values * static_cast<int64_t>(sizeof(float));
}

SharedSum::SharedSum(const char* path, int rank, int ranks, int64_t values)
    : rank_(rank), ranks_(ranks), capacity_(values) {
  static_assert(sizeof(Meeting) <= kHead && std::atomic<uint32_t>::is_always_lock_free, "for several processes");
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) throw std::runtime_error("cannot be opened");
  void* memory = mmap(nullptr, bytes(ranks, values), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) throw std::runtime_error("cannot be mapped");
  meeting_ = static_cast<Meeting*>(memory);
  values_ = reinterpret_cast<float*>(static_cast<char*>(memory) + kHead);
}

SharedSum::~SharedSum() { munmap(meeting_, bytes(ranks_, capacity_)); }

bool SharedSum::sum(const Kernels& kernels, int count, const float* const* ins, const int64_t* sizes,
                    float* const* outs) {
  int64_t total = 0;
  for (int i = 0; i < count; ++i) total += sizes[i];
  if (total > capacity_) return false;
  float* own = slot(rank_);
  for (int i = 0; i < count; ++i) own = std::copy_n(ins[i], sizes[i], own);
  wait_for_all();
  // Each process sums up a part of the values. The others read their slots until all have met again, and write them
  // after that only.
  const int64_t begin = total * rank_ / ranks_, size = total * (rank_ + 1) / ranks_ - begin;
  std::copy_n(slot(0) + begin, size, result() + begin);
  for (int rank = 1; rank < ranks_; ++rank) kernels.add(result() + begin, slot(rank) + begin, size);
  wait_for_all();
  const float* from = result();
  for (int i = 0; i < count; from += sizes[i++]) std::copy_n(from, sizes[i], outs[i]);
  return true;
}

// The last one to arrive lets all go on. Nobody waits for a process that is gone: neighbours.py ends the others.
void SharedSum::wait_for_all() {
  const uint32_t round = meeting_->round.load();
  if (meeting_->arrived.fetch_add(1) + 1 == static_cast<uint32_t>(ranks_)) {
    meeting_->arrived.store(0);
    meeting_->round.fetch_add(1);
    return;
  }
  for (int spins = 0; meeting_->round.load() == round; ++spins) {
    if (spins < kSpins) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

}  // namespace ghostnet
