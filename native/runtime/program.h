// An ordered list of steps over values (docs/program.md), checked as it is made. It holds no buffers: a Plan does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/packing.h"
#include "runtime/dtype.h"
#include "runtime/given.h"

namespace openwork {

inline constexpr int kAbsent = -1;

// Weights as they run, for up to `max_rows` rows; -1: any number.
struct PackedTactic {
  std::shared_ptr<const PackedWeights> weights;
  int64_t max_rows = -1;
};

// One step as a caller gives it, everything under the name that docs/program.md has for it. Of a slot the handles of its values,
// one or, of a variadic slot, several; what is absent has no entry.
struct StepSpec {
  std::string op, name;
  std::map<std::string, std::vector<int>> inputs, outputs;
  Given given = {};
  std::vector<PackedTactic> weights = {};  // by rising max_rows, the last for any number; of an operator that has a weight
};

// Where a value lies: in a place of its own, in that of what it is a view of or is written over, or inside of the rows of what is
// made of it.
struct Home {
  int value;
  int64_t offset = 0;  // bytes from that one's beginning
  int64_t stride = 0;  // elements from row to row of what lies inside of wider rows; else 0

  bool operator==(const Home&) const = default;
};

// Shapes made concrete, and the number of threads to cut the work for.
struct Sizes {
  std::vector<std::vector<int64_t>> dims;
  std::vector<Home> homes;
  int threads = 1;

  int64_t elements(int value) const;
  int64_t width(int value) const { return dims[value].back(); }
  int64_t rows(int value) const { return elements(value) / width(value); }
  bool lies_inside(int value) const { return homes[static_cast<size_t>(value)].stride > 0; }
  // Elements from row to row.
  int64_t stride(int value) const { return lies_inside(value) ? homes[static_cast<size_t>(value)].stride : width(value); }
  // Whether a value's rows lie inside of those of y, from byte `offset` of each on.
  bool lies_at(int value, int y, int64_t offset) const;
};

// Where the values of one run lie.
struct Buffers {
  std::vector<void*> values;
  std::byte* scratch = nullptr;
  int64_t scratch_stride = 0;  // bytes from one thread's to the next one's

  template <class T>
  T* get(int value) const {
    return value == kAbsent ? nullptr : static_cast<T*>(values[value]);
  }
  template <class T>
  T* scratch_of(int thread) const {
    return reinterpret_cast<T*>(scratch + thread * scratch_stride);
  }
};

struct Part {
  int64_t begin, end;  // units
  int thread;
};

// A step for concrete shapes: independent units, taken `chunk` at a time.
struct Work {
  int64_t units = 0;
  int64_t chunk = 1;
  int64_t scratch_bytes = 0;  // a thread
  std::function<void(const Buffers&, const Part&)> run;
  std::function<void(const Buffers&)> check;  // of the inputs' contents; throws std::invalid_argument; may be empty
};

inline constexpr int kNoAxis = -1;

// A value that a step reads.
struct Read {
  int value;
  bool ahead;    // up to kReadAhead bytes behind its last element too
  bool checked;  // its content decides what memory is touched, so `Work::check` looks at it first
  bool strided;  // its rows may lie further apart than they are wide: bind() looks at Sizes::stride()
  int may_be_zero = kNoAxis;  // the axis of which the step takes a free dimension of 0 too

  Read(int value_, bool ahead_ = false, bool checked_ = false, bool strided_ = false)
      : value(value_), ahead(ahead_), checked(checked_), strided(strided_) {}
};

// A value whose rows are, byte for byte, a part of each row of what a step makes of it: from byte `offset` on.
struct RowPiece {
  int value;
  int64_t offset;
};

// A value that a step reads and one of the same elements that it makes, which may lie in one place: whoever writes a byte of the
// second has read that byte of the first for the last time, and no other unit reads or writes it. Such a read is not `ahead`.
struct InPlace {
  int read, made;
};

using Shapes = std::vector<std::vector<int64_t>>;

struct Step {
  std::string name;
  std::vector<Read> reads;
  std::vector<int> writes;
  std::function<Work(const Sizes&)> bind;  // throws std::invalid_argument where the shapes do not do
  // The shapes of `writes` for those of `reads`, where a free dimension of what it makes may be one that no input has: half of
  // one, say. Throws std::invalid_argument. Empty where all free dimensions are the inputs'.
  std::function<Shapes(const Shapes&)> shapes = nullptr;
  // What it makes is byte for byte what it reads first, so that both may lie in one place; bind() is for where they may not.
  bool view = false;
  int64_t weight_bytes = 0;  // that it reads for any number of rows
  // Elements of the first dimension know of each other, so that none of them runs without the others.
  bool joins_batch = false;
  // The rows of what it makes first may lie further apart than they are wide: bind() looks at Sizes::stride().
  bool strided = false;
  // What it reads that may lie in the rows of what it makes from the beginning: bind() leaves out what Sizes::lies_at() says of.
  std::vector<RowPiece> pieces = {};
  // Of values [batch, position, ..]: what it makes at a position follows from what it reads there, and from the position's number,
  // alone.
  bool apart = false;
  // A value [batch, position]: what it reads where that is 0 changes nothing at the other positions, nor in what has none.
  int mask = kAbsent;
  // It reads the first so many positions alone; 0: it may read all.
  int64_t front = 0;
  // What it may write over what it reads, the first choice first. Where the two lie in one place is decided for the whole program.
  std::vector<InPlace> in_place = {};
};

struct Value {
  DType dtype;
  std::vector<int64_t> dims;  // -1 - s stands for the free dimension s
};

// The operators that have a step: the rows of kernels/table.inc.
std::vector<std::string> step_names();

// Everything throws std::invalid_argument with a sentence that names the step, what it expected and what it found.
class Program {
 public:
  explicit Program(const KernelTable& table) : table_(table) {}
  Program(const Program&) = delete;  // steps refer to it
  Program& operator=(const Program&) = delete;

  int value(DType dtype, const std::vector<int64_t>& dims);
  // One of step_names(), with everything that it reads and nothing else.
  void step(const StepSpec& spec);
  // Any other step; step() ends here. Its values must exist.
  void add_step(Step step);
  // Nothing can be added afterwards, and only then can a context run the program.
  void finish(const std::vector<int>& inputs, const std::vector<int>& outputs);

  const KernelTable& table() const { return table_; }
  bool finished() const { return finished_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& outputs() const { return outputs_; }
  // The value in whose place a value lies: its own, or that of what it is a view or a piece of or is written over, an input or
  // output of the program if one is.
  int home(int value) const { return home_of(value).value; }
  const Home& home_of(int value) const { return homes_[static_cast<size_t>(value)]; }
  // Whether a step has nothing to do, because what it makes lies where what it reads does.
  bool is_viewed(const Step& step) const { return step.view && home(step.writes[0]) == home(step.reads[0].value); }
  int free_dimensions() const { return free_dimensions_; }
  // Whether every step takes a free dimension of 0, wherever it has it.
  bool may_be_zero(int64_t dim) const;

 private:
  const KernelTable& table_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<int> inputs_, outputs_;
  std::vector<Home> homes_;
  int free_dimensions_ = 0;
  bool finished_ = false;
};

}  // namespace openwork
