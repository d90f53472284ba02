// u8 through a table as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_lookup(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8});
  const Operand y = c.output("y", {DType::u8}).shaped(x.dims());
  const LookupTable given = c.lookup_table("table");
  const auto held = std::make_shared<const Aligned<uint8_t>>(given.begin(), given.end());

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), held, x = x.id, y = y.id](const Sizes& sizes) {
    const LookupArgs fixed{nullptr, held->data(), sizes.elements(x), nullptr};
    return make_element_work(sizes, table.lookup, fixed, [x, y, held](LookupArgs& a, const Buffers& b, int) {
      a.x = b.get<const uint8_t>(x);
      a.y = b.get<uint8_t>(y);
    });
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
