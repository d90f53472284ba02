#include "runtime/steps/image.h"

#include <stdexcept>

namespace openwork {

Operand read_image(const StepContext& c, const std::string& slot, DTypes dtypes) {
  const Operand x = c.input(slot, dtypes).ranked(4, "[batch, height, width, channels]");
  c.expect(x.dims()[3] > 0, "expected " + slot + " with its channels, the last dimension, fixed, found " + shape_text(x.dims()) + ".");
  return x;
}

ConvAttributes window_attributes(const StepContext& c) {
  return {c.list<2>("strides"), c.list<2>("dilations"), c.list<4>("pads")};
}

void expect_made(const StepContext& c, const Operand& x, const ConvShape& shape, int64_t channels, const Operand& y) {
  made_at(c, [&] { check_shape(shape); });
  std::vector<int64_t> one = x.dims(), expected = y.dims();
  for (int64_t& d : one) d = std::max<int64_t>(d, 1);
  // A free size is taken from the other side, so that it agrees.
  if (x.dims()[1] < 0) one[1] = shape.height.reach();
  if (x.dims()[2] < 0) one[2] = shape.width.reach();
  const auto out = window_output(c, shape, channels, one);
  expected.resize(4, 1);
  expected[0] = x.dims()[0];
  expected[3] = channels;
  for (const size_t axis : {1, 2})
    if (x.dims()[axis] > 0) expected[axis] = out[axis];
  y.shaped(expected);
}

std::vector<int64_t> window_output(const Place& place, const ConvShape& shape, int64_t channels, const std::vector<int64_t>& x) {
  return made_at(place, [&] {
    const ConvGeometry g = make_geometry(shape, x[0], x[1], x[2]);
    return std::vector<int64_t>{x[0], g.out_height, g.out_width, channels};
  });
}

}  // namespace openwork
