// The pools of images as steps of a program: of windows, or of whole images.
#include "runtime/steps/image.h"

namespace openwork {

namespace {

using PoolOp = void (*)(const PoolArgs&, int64_t, int64_t);

// How a mean counts: pixels that are padded too, but for those that hang over, at the bottom and at the right.
struct Counting {
  bool padding = false;
  std::array<int64_t, 2> overhang{};
};

struct Pool {
  PoolOp op = nullptr;
  ConvShape shape;  // of windows; whole images take the size of the image
  bool whole = false;
  Counting counting;
  PoolArgs fixed;
  int x = kAbsent, y = kAbsent;
};

// Taps from `start` on that lie below `size`.
int64_t taps_below(const ConvAxis& axis, int64_t start, int64_t size) {
  return start >= size ? 0 : std::min(axis.kernel, (size - 1 - start) / axis.dilation + 1);
}

std::vector<PoolSpan> make_spans(const ConvAxis& axis, int64_t size, bool count_padding, int64_t overhang) {
  std::vector<PoolSpan> spans;
  for (int64_t out = 0; out < axis.output(size); ++out) {
    const int64_t start = axis.first_input(out);
    const int64_t skipped = start < 0 ? (axis.dilation - 1 - start) / axis.dilation : 0;
    const int64_t taps = std::max<int64_t>(0, taps_below(axis, start, size) - skipped);
    const int64_t counted = count_padding ? taps_below(axis, start, size + axis.pad_end - overhang) : taps;
    spans.push_back({taps > 0 ? start + skipped * axis.dilation : 0, taps, std::max<int64_t>(1, counted)});
  }
  return spans;
}

// Whole blocks of channels for each thread where the lines are few.
void share_channels(PoolArgs& a, int64_t lines, int threads) {
  const int64_t blocks = (a.channels + kPoolBlock - 1) / kPoolBlock;
  const int64_t wanted = threads == 1 ? 1 : std::min(blocks, (4 * threads + lines - 1) / lines);
  a.part_channels = (blocks + wanted - 1) / wanted * kPoolBlock;
  a.parts = (a.channels + a.part_channels - 1) / a.part_channels;
}

struct Spans {
  std::vector<PoolSpan> rows, columns;
};

Work bind_pool(const Pool& pool, const Place& place, const Sizes& sizes) {
  const auto& x = sizes.dims[static_cast<size_t>(pool.x)];
  const auto& y = sizes.dims[static_cast<size_t>(pool.y)];
  ConvAxis height = pool.shape.height, width = pool.shape.width;
  if (pool.whole) height.kernel = x[1], width.kernel = x[2];
  const auto spans = std::make_shared<Spans>(Spans{make_spans(height, x[1], pool.counting.padding, pool.counting.overhang[0]),
                                                   make_spans(width, x[2], pool.counting.padding, pool.counting.overhang[1])});
  const int64_t pixels = std::min(height.kernel, x[1]) * std::min(width.kernel, x[2]);
  place.expect(!pool.fixed.x_bytes || pixels <= kMostPixelsSummed,
               "expected windows of at most 2^23 pixels, whose sum INT32 holds, found " + std::to_string(pixels) + ".");
  PoolArgs a = pool.fixed;
  a.height = x[1], a.width = x[2], a.channels = x[3];
  a.out_height = y[1], a.out_width = y[2], a.y_stride = sizes.stride(pool.y);
  a.row_step = height.dilation * x[2] * x[3];
  a.column_step = width.dilation * x[3];
  a.rows = spans->rows.data(), a.columns = spans->columns.data();
  const int64_t lines = y[0] * y[1];
  share_channels(a, lines, sizes.threads);
  const int64_t units = lines * a.parts;
  return make_work(units, even_chunk(units, sizes.threads), pool.op, a,
                   [spans, x = pool.x, y = pool.y](PoolArgs& args, const Buffers& b, int) {
                     args.x = b.get<const void>(x);
                     args.y = b.get<void>(y);
                   });
}

Step pool_step(const StepContext& c, const Pool& pool) {
  Step step{c.name(), {{pool.x, true}}, {pool.y}, [pool, place = c.place()](const Sizes& sizes) {
    return bind_pool(pool, place, sizes);
  }};
  if (!pool.whole)
    step.shapes = [place = c.place(), shape = pool.shape](const Shapes& reads) -> Shapes {
      return {window_output(place, shape, shape.n, reads[0])};
    };
  step.strided = true;
  return step;
}

// Values of a pool of windows or of whole images, the shape of y checked.
Pool read_pool(const StepContext& c, DTypes made, bool whole) {
  const Operand x = read_image(c, "x", {DType::u8, DType::f32}), y = c.output("y", made);
  const int64_t channels = x.dims()[3];
  Pool pool;
  pool.x = x.id, pool.y = y.id, pool.whole = whole;
  pool.fixed.x_bytes = x.dtype() == DType::u8;
  pool.fixed.y_bytes = y.dtype() == DType::u8;
  pool.shape.n = pool.shape.channels = channels;
  if (whole) {
    y.shaped({x.dims()[0], 1, 1, channels});
    return pool;
  }
  const ConvAttributes a = window_attributes(c);
  const auto kernel = c.list<2>("kernel");
  pool.shape.height = {kernel[0], a.strides[0], a.dilations[0], a.pads[0], a.pads[2]};
  pool.shape.width = {kernel[1], a.strides[1], a.dilations[1], a.pads[1], a.pads[3]};
  expect_made(c, x, pool.shape, channels, y);
  return pool;
}

Step max_step(const StepContext& c, bool whole) {
  Pool pool = read_pool(c, {DType::u8, DType::f32}, whole);
  c.expect(pool.fixed.x_bytes == pool.fixed.y_bytes, "expected y of the type of x.");
  pool.op = c.table().max_pool;
  return pool_step(c, pool);
}

Step average_step(const StepContext& c, bool whole) {
  Pool pool = read_pool(c, {DType::f32, DType::u8}, whole);
  pool.op = c.table().average_pool;
  if (pool.fixed.x_bytes) {
    const Quantization x = c.quantization("x");
    pool.fixed.x_scale = x.scale;
    pool.fixed.x_zero_point = x.zero_point;
  }
  if (pool.fixed.y_bytes) pool.fixed.quantizer = c.quantization("y").quantizer();
  if (whole) return pool_step(c, pool);
  pool.counting.padding = c.flag("count_include_pad");
  pool.counting.overhang = c.list<2>("overhang", std::array<int64_t, 2>{});
  const ConvAxis* axes[] = {&pool.shape.height, &pool.shape.width};
  for (size_t i = 0; i < 2; ++i)
    c.expect(pool.counting.overhang[i] >= 0 && pool.counting.overhang[i] <= axes[i]->pad_end,
             "expected overhang to be a part of the pads at the bottom and at the right, found " +
                 std::to_string(pool.counting.overhang[i]) + " of " + std::to_string(axes[i]->pad_end) + ".");
  return pool_step(c, pool);
}

}  // namespace

Step make_max_pool(const StepContext& c) { return max_step(c, false); }
Step make_global_max_pool(const StepContext& c) { return max_step(c, true); }
Step make_average_pool(const StepContext& c) { return average_step(c, false); }
Step make_global_average_pool(const StepContext& c) { return average_step(c, true); }

}  // namespace openwork
