#include "runtime/program.h"

#include <algorithm>
#include <stdexcept>

#include "runtime/homes.h"

namespace openwork {

namespace {

constexpr int kMostFreeDimensions = 64;
// A bound on the elements of one value, so that products of hostile dimensions do not overflow.
constexpr int64_t kMostElements = int64_t{1} << 40;

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

std::string value_text(int id) { return "value " + std::to_string(id); }

// Values made so far, while the steps are walked in order.
class Made {
 public:
  explicit Made(size_t values) : made_(values, false) {}

  void check_id(int id, const char* role) const {
    if (id < 0 || id >= static_cast<int>(made_.size()))
      fail("Expected each " + std::string(role) + " of the program to be one of its " + std::to_string(made_.size()) +
           " values, found " + std::to_string(id) + ".");
  }
  void input(int id) {
    check_id(id, "input");
    if (made_[id]) fail("Expected each input of the program once, found " + value_text(id) + " twice.");
    made_[id] = true;
  }
  void step(const Step& step) {
    for (const Read& read : step.reads)
      if (!made_[read.value])
        fail("Step \"" + step.name + "\" reads " + value_text(read.value) + ", which is no input and no earlier step makes.");
    for (const int id : step.writes) {
      if (made_[id]) fail("Step \"" + step.name + "\" makes " + value_text(id) + ", which is made before.");
      made_[id] = true;
    }
  }
  void all() const {
    for (size_t id = 0; id < made_.size(); ++id)
      if (!made_[id]) fail("Expected every value to be an input or made by a step; " + value_text(id) + " is neither.");
  }

 private:
  std::vector<bool> made_;
};

void check_outputs(const Made& made, const std::vector<int>& inputs, const std::vector<int>& outputs) {
  if (outputs.empty()) fail("Expected a program with at least one output, found none.");
  for (size_t i = 0; i < outputs.size(); ++i) {
    made.check_id(outputs[i], "output");
    if (std::count(outputs.begin(), outputs.end(), outputs[i]) > 1)
      fail("Expected each output of the program once, found " + value_text(outputs[i]) + " twice.");
    if (std::count(inputs.begin(), inputs.end(), outputs[i]) > 0)
      fail("Expected each output of the program to be made by a step, found the input " + value_text(outputs[i]) + ".");
  }
}

// A free dimension that neither an input has nor a step gives would have no size.
void check_free_dimensions(const Program& program, const std::vector<int>& inputs) {
  std::vector<bool> known(program.free_dimensions(), false);
  const auto add = [&](int id) {
    for (const int64_t d : program.values()[id].dims)
      if (d < 0) known[-1 - d] = true;
  };
  for (const int id : inputs) add(id);
  for (const Step& step : program.steps())
    if (step.shapes)
      for (const int id : step.writes) add(id);
  for (size_t s = 0; s < known.size(); ++s)
    if (!known[s])
      fail("Expected every free dimension in the shape of an input, or of what a step makes that gives it a size; dimension " +
           std::to_string(s) + " is in none.");
}

}  // namespace

int64_t Sizes::elements(int value) const {
  int64_t count = 1;
  for (const int64_t d : dims[value])
    if (__builtin_mul_overflow(count, d, &count) || count > kMostElements)
      fail("Expected at most 2^40 elements in a value, found " + value_text(value) + " of shape " + shape_text(dims[value]) + ".");
  return count;
}

bool Sizes::lies_at(int value, int y, int64_t offset) const {
  const Home& whole = homes[static_cast<size_t>(y)];
  return homes[static_cast<size_t>(value)] == Home{whole.value, whole.offset + offset, stride(y)};
}

bool Program::may_be_zero(int64_t dim) const {
  const auto has = [&](int id, int but) {
    const auto& dims = values_[static_cast<size_t>(id)].dims;
    for (int axis = 0; axis < static_cast<int>(dims.size()); ++axis)
      if (axis != but && dims[static_cast<size_t>(axis)] == dim) return true;
    return false;
  };
  for (const Step& step : steps_) {
    for (const Read& read : step.reads)
      if (has(read.value, read.may_be_zero)) return false;
    for (const int id : step.writes)
      if (has(id, kNoAxis)) return false;
  }
  return true;
}

int Program::value(DType dtype, const std::vector<int64_t>& dims) {
  if (finished_) fail("The program is finished; add all values before finish().");
  if (dims.empty()) fail("Expected a value with at least one dimension, found none.");
  for (const int64_t d : dims) {
    if (d == 0 || d < -kMostFreeDimensions)
      fail("Expected dimensions of at least 1, or -1 - s for the free dimension s below " +
           std::to_string(kMostFreeDimensions) + ", found " + std::to_string(d) + ".");
    if (d < 0) free_dimensions_ = std::max(free_dimensions_, static_cast<int>(-d));
  }
  values_.push_back({dtype, dims});
  return static_cast<int>(values_.size()) - 1;
}

void Program::add_step(Step step) {
  std::erase_if(step.reads, [](const Read& read) { return read.value == kAbsent; });
  std::erase(step.writes, kAbsent);
  std::erase_if(step.in_place, [](const InPlace& pair) { return pair.read == kAbsent || pair.made == kAbsent; });
  steps_.push_back(std::move(step));
}

void Program::finish(const std::vector<int>& inputs, const std::vector<int>& outputs) {
  if (finished_) fail("The program is finished already.");
  Made made(values_.size());
  for (const int id : inputs) made.input(id);
  for (const auto& step : steps_) made.step(step);
  made.all();
  check_outputs(made, inputs, outputs);
  check_free_dimensions(*this, inputs);
  inputs_ = inputs;
  outputs_ = outputs;
  homes_ = find_homes(*this);
  finished_ = true;
}

}  // namespace openwork
