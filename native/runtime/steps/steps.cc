// The table of steps: which function makes the step of an operator.
#include <algorithm>
#include <iterator>

#include "runtime/steps/context.h"

namespace openwork {

#define OPENWORK_STEP(op, maker) Step make_##maker(const StepContext& context);
#include "kernels/table.inc"
#undef OPENWORK_STEP

namespace {

struct Maker {
  const char* op;
  Step (*make)(const StepContext&);
};
constexpr Maker kMakers[] = {
#define OPENWORK_STEP(op, maker) {#op, make_##maker},
#include "kernels/table.inc"
#undef OPENWORK_STEP
};

const Maker& maker_of(const StepSpec& spec) {
  const auto* found = std::find_if(std::begin(kMakers), std::end(kMakers), [&](const Maker& m) { return spec.op == m.op; });
  if (found != std::end(kMakers)) return *found;
  std::string known;
  for (const Maker& maker : kMakers) known += (known.empty() ? "" : ", ") + std::string(maker.op);
  Place("Step \"" + spec.name + "\": ").fail("expected an operator out of " + known + ", found \"" + spec.op + "\".");
}

}  // namespace

std::vector<std::string> step_names() {
  std::vector<std::string> names;
  for (const Maker& maker : kMakers) names.emplace_back(maker.op);
  return names;
}

void Program::step(const StepSpec& spec) {
  const Maker& maker = maker_of(spec);
  const StepContext context(*this, spec);
  Step step = maker.make(context);
  context.expect_all_read();
  add_step(std::move(step));
}

}  // namespace openwork
