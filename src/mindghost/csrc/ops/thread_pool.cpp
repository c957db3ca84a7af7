#include "thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

namespace ghostnet {
namespace {

struct Job {
  const std::function<void(Parts&)>* task;
  int64_t count, part;
  std::atomic<int64_t> taken{0};

  void run() {
    Parts parts(&taken, count, part);
    (*task)(parts);
  }
};

// Threads sleep between jobs: MindSpore's own need the cores then.
class Pool {
 public:
  // One pool for the life of the process; its threads may outlive everything static, so it is never destroyed.
  static Pool& get() {
    static Pool* pool = new Pool;
    return *pool;
  }

  void set_threads(int count) {
    std::lock_guard<std::mutex> caller(callers_);
    wanted_ = std::max(count, 1) - 1;
  }

  int threads() const { return wanted_ + 1; }

  void run(int64_t count, int64_t part, const std::function<void(Parts&)>& task) {
    Job job;
    job.task = &task;
    job.count = count;
    job.part = part;
    std::unique_lock<std::mutex> caller(callers_, std::try_to_lock);
    if (!caller.owns_lock() || count <= part || wanted_ == 0) {
      job.run();
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (; started_ < wanted_; ++started_) std::thread([this, index = started_] { work(index); }).detach();
      job_ = &job;
      helpers_ = wanted_;
      ++jobs_;
    }
    wake_.notify_all();
    job.run();
    // From here on no thread takes up the job any more; those at work on it are waited for.
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;
    done_.wait(lock, [this] { return working_ == 0; });
  }

  // A forked child has none of the threads, and locks in any state.
  void forget_threads() {
    new (&callers_) std::mutex;
    new (&mutex_) std::mutex;
    new (&wake_) std::condition_variable;
    new (&done_) std::condition_variable;
    started_ = working_ = 0;
    job_ = nullptr;
  }

 private:
  Pool() {
    pthread_atfork(nullptr, nullptr, [] { get().forget_threads(); });
  }

  void work(int index) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return jobs_ != seen; });
      seen = jobs_;
      if (job_ == nullptr || index >= helpers_) continue;
      Job* job = job_;
      ++working_;
      lock.unlock();
      job->run();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::mutex callers_;  // held by the call that uses the threads
  std::mutex mutex_;    // guards what follows
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  uint64_t jobs_ = 0;
  int helpers_ = 0, working_ = 0, started_ = 0;
  std::atomic<int> wanted_{0};
};

}  // namespace

void set_threads(int count) { Pool::get().set_threads(count); }

int threads() { return Pool::get().threads(); }

void parallel(int64_t count, int64_t part, const std::function<void(Parts&)>& task) {
  Pool::get().run(count, part, task);
}

}  // namespace ghostnet
