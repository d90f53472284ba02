#include "runtime/steps/context.h"

#include <algorithm>

namespace openwork {

const Operand& Operand::shaped(const std::vector<int64_t>& expected) const {
  if (value_)
    place_->expect(dims() == expected,
                   "expected " + slot_ + " of shape " + shape_text(expected) + ", found " + shape_text(dims()) + ".");
  return *this;
}

const Operand& Operand::ranked(size_t rank, const char* form) const {
  if (value_)
    place_->expect(dims().size() == rank, "expected " + slot_ + " of shape " + form + ", found " + shape_text(dims()) + ".");
  return *this;
}

int64_t Operand::width() const {
  place_->expect(dims().back() > 0, "expected " + slot_ + " with a fixed last dimension, found " + shape_text(dims()) + ".");
  return dims().back();
}

StepContext::StepContext(const Program& program, const StepSpec& spec)
    : GivenReader("Step \"" + spec.name + "\" (" + spec.op + "): ", spec.given), program_(program), spec_(spec) {
  expect(!program.finished(), "the program is finished; add all steps before finish().");
}

Operand StepContext::operand(const std::string& slot, int id, DTypes dtypes) const {
  const auto& values = program_.values();
  expect(id >= 0 && id < static_cast<int>(values.size()), "expected " + slot + " to be one of the " +
                                                              std::to_string(values.size()) + " values, found " +
                                                              std::to_string(id) + ".");
  const Value& v = values[static_cast<size_t>(id)];
  expect(std::count(dtypes.begin(), dtypes.end(), v.dtype) > 0,
         "expected " + slot + " of type " + dtype_names(dtypes) + ", found " + dtype_name(v.dtype) + ".");
  return {*this, slot, id, &v};
}

std::vector<Operand> StepContext::operands(const Slots& slots, const std::string& slot, DTypes dtypes) const {
  const auto found = slots.find(slot);
  if (found == slots.end()) return {};
  slots_read_.emplace(&slots, slot);
  std::vector<Operand> operands;
  for (const int id : found->second) {
    const bool alone = found->second.size() == 1;
    operands.push_back(operand(alone ? slot : slot + "[" + std::to_string(operands.size()) + "]", id, dtypes));
  }
  return operands;
}

// `needed`: "input" or "output" where it must be there, else null.
Operand StepContext::single(const Slots& slots, const std::string& slot, DTypes dtypes, const char* needed) const {
  const auto found = operands(slots, slot, dtypes);
  expect(found.size() <= 1, "expected one value as " + slot + ", found " + std::to_string(found.size()) + ".");
  if (!found.empty()) return found.front();
  if (needed) fail("expected an " + std::string(needed) + " " + slot + ", found none.");
  return {*this, slot, kAbsent, nullptr};
}

Operand StepContext::input(const std::string& slot, DTypes dtypes) const {
  return single(spec_.inputs, slot, dtypes, "input");
}

Operand StepContext::optional_input(const std::string& slot, DTypes dtypes) const {
  return single(spec_.inputs, slot, dtypes, nullptr);
}

Operand StepContext::output(const std::string& slot, DTypes dtypes) const {
  return single(spec_.outputs, slot, dtypes, "output");
}

Operand StepContext::optional_output(const std::string& slot, DTypes dtypes) const {
  return single(spec_.outputs, slot, dtypes, nullptr);
}

std::vector<Operand> StepContext::inputs(const std::string& slot, DTypes dtypes) const {
  const auto found = operands(spec_.inputs, slot, dtypes);
  expect(!found.empty(), "expected at least one input " + slot + ", found none.");
  return found;
}

const std::vector<PackedTactic>& StepContext::weights() const {
  weights_read_ = true;
  const auto& weights = spec_.weights;
  expect(!weights.empty(), "expected packed weights for any number of rows, found none.");
  expect(weights.back().max_rows == -1,
         "expected -1 as max_rows of the last weights, found " + std::to_string(weights.back().max_rows) + ".");
  int64_t last = 0;
  for (const auto& tactic : weights) {
    expect(&tactic == &weights.back() || tactic.max_rows > last,
           "expected positive, increasing max_rows before the last, found " + std::to_string(tactic.max_rows) + " after " +
               std::to_string(last) + ".");
    last = tactic.max_rows;
    expect(tactic.weights != nullptr, "expected packed weights, found none.");
    const KernelTable& own = tactic.weights->table();
    expect(&own == &table(), "expected weights packed for " + std::string(table().isa) + ", found " + own.isa + ".");
  }
  return weights;
}

void StepContext::expect_all_read() const {
  for (const auto* slots : {&spec_.inputs, &spec_.outputs})
    for (const auto& [slot, values] : *slots)
      expect(slots_read_.contains({slots, slot}),
             "expected nothing as " + slot + ", because no such slot is used here; leave it out.");
  expect(weights_read_ || spec_.weights.empty(),
         "expected no packed weights, found " + std::to_string(spec_.weights.size()) + ".");
  GivenReader::expect_all_read();
}

}  // namespace openwork
