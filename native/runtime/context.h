// A thread pool and an arena that run a program. Contexts are independent of each other and share the packed weights.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/buffer.h"
#include "runtime/plan.h"
#include "runtime/slicing.h"
#include "runtime/thread_pool.h"
#include "runtime/trimming.h"

namespace openwork {

// Read to the last element and not behind it. Read once where its content is checked: the caller may write to it meanwhile.
struct InputTensor {
  DType dtype;
  std::vector<int64_t> dims;
  const void* data;
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

// Where the inputs and outputs of a run begin, or those of a part of its batch.
struct Operands {
  std::vector<const std::byte*> inputs;
  std::vector<std::byte*> outputs;
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
  // The inputs as the steps may read them: where they are, or copied.
  std::vector<InputTensor> held(const Plan& plan, const std::vector<InputTensor>& inputs);
  // With no arena, only inputs and outputs have a place.
  Buffers place(const Plan& plan, std::byte* arena, const Operands& operands) const;
  void check_contents(const Plan& plan, const Operands& operands) const;
  // From batch element `begin` on, of operands of these sizes.
  Operands from(const Operands& operands, const Plan& plan, int64_t begin) const;
  // Of one batch element.
  int64_t row_bytes(const Plan& plan, int value) const;
  // A whole plan on all threads; each step in turn.
  void run_whole(const Plan& plan, const Operands& operands);
  void run_step(const Work& work, const Buffers& buffers);
  void run_slices(const Slicing& slicing, RunSizes sizes, const Operands& operands);
  // The texts of a batch without their padding: whether there was any to leave out.
  bool run_trimmed(const Plan& plan, const RunSizes& sizes, const Operands& operands);
  void run_texts(const Plan& plan, const Texts& texts, const RunSizes& sizes, const Operands& operands);
  // Texts that run together: the plan of their sizes, where they are staged, and which of the batch they are.
  struct Group {
    std::shared_ptr<const Plan> plan;
    Operands operands;
    std::vector<int64_t> elements;
  };
  std::vector<Group> group(const Texts& texts, const RunSizes& sizes);
  void bring(const Plan& plan, const Group& group, const Operands& operands) const;
  void give_back(const Group& group, const Operands& operands) const;
  // One slice on the calling thread.
  void run_slice(const Plan& plan, const Operands& operands, int thread);
  // What the slices left of the batch.
  void run_rest(const Plan& plan, int64_t done, RunSizes sizes, const Operands& operands);
  // A batch as it came, in slices where that is faster.
  void run_all(const Plan& plan, const RunSizes& sizes, const Operands& operands);
  template <class Run>
  void run_steps(const Plan& plan, std::vector<double>& seconds, const Run& run) const;

  std::shared_ptr<const Program> program_;
  std::mutex mutex_;
  ThreadPool pool_;
  PlanCache plans_, slice_plans_;
  bool sliced_;  // where the batch is large enough
  std::optional<Trimming> trimming_;
  std::vector<bool> copied_;  // of each input: it may not be read where it is
  std::vector<AlignedBuffer> copies_;
  AlignedBuffer staged_;  // the inputs and outputs of texts without their padding
  AlignedBuffer arena_;
  std::vector<AlignedBuffer> slice_arenas_;  // of each thread
  bool profiling_ = false;
  std::vector<double> seconds_;                     // of each step, run on all threads
  std::vector<std::vector<double>> slice_seconds_;  // of each thread and step, run in slices
  int64_t profiled_ = 0;                            // runs
};

}  // namespace openwork
