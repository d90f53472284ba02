// Threads that wait close by: a step of a network lasts microseconds, so waking must cost less.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace openwork {

class ThreadPool {
 public:
  // `threads` counts the caller of run(). Throws std::invalid_argument outside of 1 to kMostThreads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  static constexpr int kMostThreads = 1024;

  int threads() const { return static_cast<int>(slots_.size()); }

  // Calls f(unit, thread) once for every unit in [0, units), and returns when all are done. Each thread begins with its own
  // contiguous part, so that it meets the rows of the step before in its cache, and then takes from the others. A worker
  // that the system does not run delays nobody but the unit that it holds. One caller at a time; f does not throw.
  template <class F>
  void run(int64_t units, const F& f) {
    if (threads() == 1 || units <= 1) {
      for (int64_t unit = 0; unit < units; ++unit) f(unit, 0);
      return;
    }
    run_all(units, [](const void* context, int64_t unit, int thread) { (*static_cast<const F*>(context))(unit, thread); }, &f);
  }

 private:
  using Call = void (*)(const void* context, int64_t unit, int thread);

  // The units [next, end) of one thread, claimed by compare-and-swap of both at once. A claim that meets the range of a
  // later run is as good as any, because call_ and context_ are read after it.
  struct alignas(64) Slot {
    std::atomic<uint64_t> range{0};
  };

  void run_all(int64_t units, Call call, const void* context);
  // Works until no slot holds a unit; false if it found none.
  bool work(int thread);
  bool claim(int slot, int64_t& unit);
  bool any_unit() const;
  void worker(int thread);
  void sleep_until_work();

  std::vector<Slot> slots_;
  std::vector<std::thread> workers_;
  Call call_ = nullptr;
  const void* context_ = nullptr;
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<int> wake_{0};
  std::atomic<bool> stop_{false};
  int process_;
};

}  // namespace openwork
