// A thread pool and an arena that run a program. Contexts are independent of each other and share the packed weights.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/plan.h"
#include "runtime/thread_pool.h"

namespace openwork {

struct InputTensor {
  DType dtype;
  std::vector<int64_t> dims;
  const void* data;  // read to the last element and not behind it
};

struct OutputTensor {
  DType dtype;
  std::vector<int64_t> dims;
  AlignedBuffer buffer;
};

struct StepProfile {
  std::string name;
  double seconds = 0;
  int64_t calls = 0;
};

class Context {
 public:
  // Throws std::invalid_argument for a program that is not finished, or a number out of range.
  Context(std::shared_ptr<const Program> program, int threads, int max_plans);

  // Throws std::invalid_argument for inputs that are not as the program declares them. Safe to call from several threads:
  // one runs at a time.
  std::vector<OutputTensor> run(const std::vector<InputTensor>& inputs);

  // The time of each step, measured on the calling thread; enabling starts from zero.
  void enable_profile(bool enabled);
  std::vector<StepProfile> profile();

 private:
  void check_inputs(const std::vector<InputTensor>& inputs) const;
  Buffers place(const Plan& plan, const std::vector<InputTensor>& inputs, const std::vector<OutputTensor>& outputs);
  void run_step(const Work& work, const Buffers& buffers);
  void run_steps(const Plan& plan, const Buffers& buffers);

  std::shared_ptr<const Program> program_;
  std::mutex mutex_;
  ThreadPool pool_;
  PlanCache plans_;
  AlignedBuffer arena_;
  bool profiling_ = false;
  std::vector<StepProfile> profile_;
};

}  // namespace openwork
