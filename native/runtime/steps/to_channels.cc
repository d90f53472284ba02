// The channels of images moved to the end or to the front, as steps of a program. Where the image has one channel or one pixel
// nothing moves.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

struct Move {
  int x, y;
  bool last;  // channels become the last dimension
  TransposeArgs fixed;
};

Work bind_move(const Move& move, const KernelTable& table, const Sizes& sizes) {
  const auto& x = sizes.dims[static_cast<size_t>(move.x)];
  TransposeArgs a = move.fixed;
  a.rows = move.last ? x[1] : x[1] * x[2];
  a.columns = move.last ? x[2] * x[3] : x[3];
  const int64_t units = x[0] * a.row_tiles() * a.column_tiles();
  return make_work(units, even_chunk(units, sizes.threads), table.transpose_matrix, a,
                   [x = move.x, y = move.y](TransposeArgs& args, const Buffers& b, int) {
                     args.x = b.get<const void>(x);
                     args.y = b.get<void>(y);
                   });
}

Step move_step(const StepContext& c, bool last) {
  const char* const form = last ? "[batch, channels, height, width]" : "[batch, height, width, channels]";
  const Operand x = c.input("x", {DType::u8, DType::f32}).ranked(4, form), y = c.output("y", {DType::u8, DType::f32});
  const auto& d = x.dims();
  y.shaped(last ? std::vector{d[0], d[2], d[3], d[1]} : std::vector{d[0], d[3], d[1], d[2]});
  const bool quantized = last && x.dtype() == DType::f32 && y.dtype() == DType::u8;
  c.expect(quantized || x.dtype() == y.dtype(), "expected y of the type of x, " + std::string(dtype_name(x.dtype())) +
                                                    ", found " + dtype_name(y.dtype()) + ".");
  Move move{x.id, y.id, last, {}};
  move.fixed.x_bytes = x.dtype() == DType::u8;
  move.fixed.y_bytes = y.dtype() == DType::u8;
  if (quantized) move.fixed.quantizer = c.quantization("y").quantizer();
  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), move](const Sizes& sizes) { return bind_move(move, table, sizes); }};
  const int64_t channels = last ? d[1] : d[3], height = last ? d[2] : d[1], width = last ? d[3] : d[2];
  step.view = !quantized && (channels == 1 || (height == 1 && width == 1));
  return step;
}

}  // namespace

Step make_to_channels_last(const StepContext& c) { return move_step(c, true); }
Step make_to_channels_first(const StepContext& c) { return move_step(c, false); }

}  // namespace openwork
