// Another shape for the same elements, as a step of a program: a view.
#include <algorithm>

#include "runtime/steps/copy.h"

namespace openwork {

namespace {

constexpr int64_t kKept = 0, kRest = -1;

// `shape` with 0 and -1 made sizes, for x of these sizes; fails where the elements are not as many.
std::vector<int64_t> reshaped(const Place& place, const std::vector<int64_t>& shape, const std::vector<int64_t>& x) {
  std::vector<int64_t> made = shape;
  int64_t elements = 1, known = 1;
  for (const int64_t d : x) elements *= d;
  for (size_t i = 0; i < made.size(); ++i) {
    if (made[i] == kKept) made[i] = x[i];
    if (made[i] != kRest) known *= made[i];
  }
  for (int64_t& d : made)
    if (d == kRest) d = elements / known, known *= d;
  place.expect(known == elements,
               "expected x of as many elements as the shape " + shape_text(made) + " has, found " + shape_text(x) + ".");
  return made;
}

void check_target(const StepContext& c, const std::vector<int64_t>& shape, const std::vector<int64_t>& x) {
  c.expect(std::count(shape.begin(), shape.end(), kRest) <= 1, "expected at most one -1 in the attribute shape, found several.");
  for (size_t i = 0; i < shape.size(); ++i) {
    c.expect(shape[i] >= kRest, "expected sizes, 0 or -1 in the attribute shape, found " + std::to_string(shape[i]) + ".");
    c.expect(shape[i] != kKept || i < x.size(),
             "expected a 0 in the attribute shape only where x has a dimension, found one at place " + std::to_string(i) + ".");
  }
}

}  // namespace

Step make_reshape(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8, DType::f32, DType::i64});
  const Operand y = c.output("y", {x.dtype()});
  std::vector<int64_t> shape = c.integers("shape", 1, 8);
  check_target(c, shape, x.dims());
  // A batch that both have is kept in slices of it too.
  if (shape[0] > 0 && shape[0] == x.dims()[0]) shape[0] = kKept;
  y.ranked(shape.size(), ("of " + std::to_string(shape.size()) + " dimensions").c_str());
  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), x = x.id, y = y.id, dtype = x.dtype()](const Sizes& sizes) {
    return copy_all(table, sizes, x, y, dtype);
  }};
  step.shapes = [place = c.place(), shape](const Shapes& reads) -> Shapes { return {reshaped(place, shape, reads[0])}; };
  step.view = true;
  step.apart = x.dims().size() > 2 && y.dims().size() > 2 && std::equal(x.dims().begin(), x.dims().begin() + 2, y.dims().begin());
  return step;
}

}  // namespace openwork
