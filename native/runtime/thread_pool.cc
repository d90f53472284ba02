#include "runtime/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

namespace openwork {

namespace {

// Long enough to bridge the caller's work between two runs of a network, short enough to leave the core to others.
constexpr std::chrono::microseconds kSpin{80};
constexpr int kPausesPerLook = 32;
// The caller gives its core away if a worker holds the last unit for longer: it may be waiting for that core.
constexpr int kPausesBeforeYield = 20000;

void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  // `yield` does nothing on most cores; this one takes about as long as x86's pause.
  asm volatile("isb" ::: "memory");
#endif
}

int checked(int threads) {
  if (threads < 1 || threads > ThreadPool::kMostThreads)
    throw std::invalid_argument("Expected 1 to " + std::to_string(ThreadPool::kMostThreads) + " threads, found " +
                                std::to_string(threads) + ".");
  return threads;
}

uint64_t range(uint64_t next, uint64_t end) { return next << 32 | end; }

}  // namespace

ThreadPool::ThreadPool(int threads) : slots_(checked(threads)), process_(getpid()) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker(i); });
}

ThreadPool::~ThreadPool() {
  if (getpid() != process_) {
    // A forked child has the objects of the workers but not the threads: there is nothing to join.
    for (auto& worker : workers_) worker.detach();
    return;
  }
  stop_.store(true, std::memory_order_seq_cst);
  wake_.fetch_add(1, std::memory_order_seq_cst);
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

bool ThreadPool::claim(int slot, int64_t& unit) {
  auto& range_of = slots_[slot].range;
  uint64_t held = range_of.load(std::memory_order_relaxed);
  while (held >> 32 < (held & 0xffffffff)) {
    if (range_of.compare_exchange_weak(held, held + (uint64_t{1} << 32), std::memory_order_acq_rel)) {
      unit = static_cast<int64_t>(held >> 32);
      return true;
    }
  }
  return false;
}

bool ThreadPool::any_unit() const {
  return std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    const uint64_t held = slot.range.load(std::memory_order_seq_cst);
    return held >> 32 < (held & 0xffffffff);
  });
}

bool ThreadPool::work(int thread) {
  bool found = false;
  for (int i = 0; i < threads(); ++i) {
    const int slot = (thread + i) % threads();
    int64_t unit;
    while (claim(slot, unit)) {
      call_(context_, unit, thread);
      done_.fetch_add(1, std::memory_order_release);
      found = true;
    }
  }
  return found;
}

void ThreadPool::run_all(int64_t units, Call call, const void* context) {
  call_ = call;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  const int64_t count = threads();
  for (int64_t i = 0; i < count; ++i)
    slots_[i].range.store(range(units * i / count, units * (i + 1) / count), std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    wake_.fetch_add(1, std::memory_order_seq_cst);
    wake_.notify_all();
  }
  work(0);
  for (int i = 0; done_.load(std::memory_order_acquire) < units; ++i) {
    if (i < kPausesBeforeYield)
      pause();
    else
      std::this_thread::yield();
  }
}

void ThreadPool::sleep_until_work() {
  const int before = wake_.load(std::memory_order_seq_cst);
  sleeping_.fetch_add(1, std::memory_order_seq_cst);
  // Whoever publishes work after this look sees the sleeper and changes wake_.
  if (!any_unit() && !stop_.load(std::memory_order_seq_cst)) wake_.wait(before, std::memory_order_seq_cst);
  sleeping_.fetch_sub(1, std::memory_order_seq_cst);
}

void ThreadPool::worker(int thread) {
  auto idle_since = std::chrono::steady_clock::now();
  while (!stop_.load(std::memory_order_relaxed)) {
    if (work(thread)) {
      idle_since = std::chrono::steady_clock::now();
      continue;
    }
    for (int i = 0; i < kPausesPerLook && !any_unit(); ++i) pause();
    if (std::chrono::steady_clock::now() - idle_since < kSpin) continue;
    sleep_until_work();
    idle_since = std::chrono::steady_clock::now();
  }
}

}  // namespace openwork
