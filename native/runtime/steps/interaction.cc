// The pairwise products of vectors as a step of a program: to floats or to u8.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

// Vectors [B, D], or several for each batch element, [B, F, D].
int64_t vectors_of(const StepContext& c, const Operand& x, int64_t width) {
  const auto& dims = x.dims();
  c.expect((dims.size() == 2 || dims.size() == 3) && dims.back() == width && dims[dims.size() - 2] != 0,
           "expected x of shape [B, " + std::to_string(width) + "] or [B, F, " + std::to_string(width) + "], found " +
               shape_text(dims) + ".");
  if (dims.size() == 2) return 1;
  c.expect(dims[1] > 0, "expected x with a fixed number of vectors, found " + shape_text(dims) + ".");
  return dims[1];
}

constexpr int64_t kAlignment = 64;

// A thread's scratch: the parts of x, a pointer for each vector, a row of y.
struct Scratch {
  int64_t rows, made, bytes;

  Scratch(int64_t parts, int64_t vectors, int64_t width)
      : rows(whole(parts * static_cast<int64_t>(sizeof(Vectors)))),
        made(rows + whole(vectors * static_cast<int64_t>(sizeof(float*)))),
        bytes(made + interaction_row(vectors, width) * static_cast<int64_t>(sizeof(float))) {}

  static constexpr int64_t whole(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
};

}  // namespace

Step make_interaction(const StepContext& c) {
  const auto x = c.inputs("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32, DType::u8});
  const int64_t width = x.front().width();
  std::vector<Vectors> parts;
  std::vector<Read> reads;
  InteractionArgs fixed;
  for (const Operand& each : x) {
    parts.push_back({nullptr, 0, vectors_of(c, each, width)});
    reads.emplace_back(each.id, false, false, each.dims().size() == 2);
    fixed.vectors += parts.back().count;
    c.expect(each.dims()[0] == x[0].dims()[0], "expected every x of one batch, found " + shape_text(each.dims()) + " beside " +
                                                   shape_text(x[0].dims()) + ".");
  }
  fixed.width = width;
  fixed.y_bytes = y.dtype() == DType::u8;
  if (fixed.y_bytes) fixed.quantizer = c.quantization("y").quantizer();
  y.shaped({x[0].dims()[0], width + fixed.vectors * (fixed.vectors - 1) / 2});

  Step step{c.name(), reads, {y.id}, [&table = c.table(), fixed, parts, reads, y = y.id](const Sizes& sizes) {
    const int64_t batch = sizes.rows(y);
    InteractionArgs sized = fixed;
    sized.y_stride = sizes.stride(y);
    std::vector<Vectors> laid = parts;
    for (size_t i = 0; i < laid.size(); ++i) {
      const int value = reads[i].value;
      laid[i].stride = sizes.lies_inside(value) ? sizes.stride(value) : laid[i].count * fixed.width;
    }
    Work work;
    work.units = batch;
    work.chunk = even_chunk(batch, sizes.threads);
    const Scratch scratch(static_cast<int64_t>(laid.size()), sized.vectors, sized.width);
    work.scratch_bytes = scratch.bytes;
    work.run = [&table, sized, laid, reads, scratch, y](const Buffers& b, const Part& part) {
      std::byte* own = b.scratch_of<std::byte>(part.thread);
      auto* given = reinterpret_cast<Vectors*>(own);
      for (size_t i = 0; i < laid.size(); ++i) given[i] = {b.get<const float>(reads[i].value), laid[i].stride, laid[i].count};
      InteractionArgs args = sized;
      args.x = given;
      args.parts = static_cast<int64_t>(laid.size());
      args.y = b.get<void>(y);
      args.rows = reinterpret_cast<const float**>(own + scratch.rows);
      args.made = reinterpret_cast<float*>(own + scratch.made);
      table.interaction(args, part.begin, part.end);
    };
    return work;
  }};
  step.strided = true;
  return step;
}

}  // namespace openwork
