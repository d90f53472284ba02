// One step as it is made: its values, tensors and attributes by the names of docs/program.md, each checked as it is read.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "runtime/program.h"

namespace openwork {

// The value that stands in a slot, or none.
class Operand {
 public:
  Operand(const Place& place, std::string slot, int value_id, const Value* value)
      : id(value_id), place_(&place), slot_(std::move(slot)), value_(value) {}

  int id;  // in the program; kAbsent where there is none

  explicit operator bool() const { return value_ != nullptr; }
  DType dtype() const { return value_->dtype; }
  const std::vector<int64_t>& dims() const { return value_->dims; }
  // Refuses another shape, or another number of dimensions than `form`, "[B, L, H]", has; an absent one passes.
  const Operand& shaped(const std::vector<int64_t>& expected) const;
  const Operand& ranked(size_t rank, const char* form) const;
  // The last dimension, which a step with tensors needs fixed.
  int64_t width() const;

 private:
  const Place* place_;
  std::string slot_;
  const Value* value_;
};

// Everything throws std::invalid_argument with a sentence that names the step, the slot, what was expected and what was found.
class StepContext : public GivenReader {
 public:
  StepContext(const Program& program, const StepSpec& spec);

  const std::string& op() const { return spec_.op; }
  const std::string& name() const { return spec_.name; }
  const Program& program() const { return program_; }
  const KernelTable& table() const { return program_.table(); }
  // For what is found only when a step is bound or run; the context is gone by then.
  Place place() const { return *this; }

  Operand input(const std::string& slot, DTypes dtypes) const;
  Operand optional_input(const std::string& slot, DTypes dtypes) const;
  // Of a variadic slot, at least one.
  std::vector<Operand> inputs(const std::string& slot, DTypes dtypes) const;
  Operand output(const std::string& slot, DTypes dtypes) const;
  Operand optional_output(const std::string& slot, DTypes dtypes) const;
  // At least one, packed for this program's kernels, in the order in which tactic_for() looks.
  const std::vector<PackedTactic>& weights() const;

  // Refuses what was given and not read.
  void expect_all_read() const;

 private:
  using Slots = std::map<std::string, std::vector<int>>;
  std::vector<Operand> operands(const Slots& slots, const std::string& slot, DTypes dtypes) const;
  Operand single(const Slots& slots, const std::string& slot, DTypes dtypes, const char* needed) const;
  Operand operand(const std::string& slot, int id, DTypes dtypes) const;

  const Program& program_;
  const StepSpec& spec_;
  mutable std::set<std::pair<const Slots*, std::string>> slots_read_;
  mutable bool weights_read_ = false;
};

// The work of an operator: `fixed` holds what the shapes decide, `fill` adds this run's pointers.
template <class Args, class Fill>
Work make_work(int64_t units, int64_t chunk, void (*op)(const Args&, int64_t, int64_t), const Args& fixed, Fill fill) {
  Work work;
  work.units = units;
  work.chunk = chunk;
  work.run = [op, fixed, fill](const Buffers& buffers, const Part& part) {
    Args args = fixed;
    fill(args, buffers, part.thread);
    op(args, part.begin, part.end);
  };
  return work;
}

// Chunks for units that are small and many: a few for each thread.
inline int64_t even_chunk(int64_t units, int threads) {
  const int64_t chunks = threads == 1 ? 1 : 4 * threads;
  return std::max<int64_t>(1, (units + chunks - 1) / chunks);
}

// The work of an operator on elements, in units of kElementBlock.
template <class Args, class Fill>
Work make_element_work(const Sizes& sizes, void (*op)(const Args&, int64_t, int64_t), const Args& fixed, Fill fill) {
  const int64_t units = (fixed.count + kElementBlock - 1) / kElementBlock;
  return make_work(units, even_chunk(units, sizes.threads), op, fixed, fill);
}

}  // namespace openwork
