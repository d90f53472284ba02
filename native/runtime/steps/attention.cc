// Attention as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

struct Operands {
  Operand q, k, v, mask, y;
  int64_t width, stride;
};

Operands read_operands(const StepContext& c) {
  const Operand q = c.input("q", {DType::f32}).ranked(3, "[B, L, H] or [B, L, 3 H]");
  const Operand k = c.optional_input("k", {DType::f32}), v = c.optional_input("v", {DType::f32});
  const Operand y = c.output("y", {DType::f32, DType::u8});
  c.expect(bool{k} == bool{v}, "expected k and v together or neither.");
  const int64_t batch = q.dims()[0], length = q.dims()[1], width = y.width(), stride = k ? width : 3 * width;
  c.expect(q.dims().back() == stride, "expected " + std::string(k ? "q" : "q (holding q, k and v)") + " of shape " +
                                          shape_text({batch, length, stride}) + ", found " + shape_text(q.dims()) + ".");
  y.shaped({batch, length, width});
  const Operand mask = c.optional_input("mask", {DType::i64}).shaped({batch, length});
  return {q, k.shaped(q.dims()), v.shaped(q.dims()), mask, y, width, stride};
}

RoundTrip round_trip(const StepContext& c, const std::string& name) {
  if (!c.has(name + "_scale")) return {};
  const Quantization rounding = c.quantization(name);
  return {rounding.quantizer(), rounding.scale};
}

AttentionArgs fixed_args(const StepContext& c, const Operands& o) {
  AttentionArgs fixed{};
  fixed.stride = o.stride;
  fixed.heads = c.integer("heads");
  c.expect(fixed.heads > 0 && o.width % fixed.heads == 0, "expected heads to divide the width " + std::to_string(o.width) +
                                                              ", found " + std::to_string(fixed.heads) + ".");
  fixed.size = o.width / fixed.heads;
  fixed.scale = c.number("scale").finite();
  fixed.quantized = o.y.dtype() == DType::u8;
  if (fixed.quantized) fixed.quantizer = c.quantization("y").quantizer();
  fixed.score = round_trip(c, "score");
  fixed.probability = round_trip(c, "probability");
  return fixed;
}

// Each part packs the keys and values again, so there are no more than the threads need.
int64_t parts_for(int64_t pairs, int64_t length, int threads) {
  if (threads == 1 || pairs >= 2 * threads) return 1;
  const int64_t wanted = (2 * threads + pairs - 1) / pairs, most = strips_of(length);
  return wanted < most ? wanted : most;
}

}  // namespace

Step make_attention(const StepContext& c) {
  const Operands o = read_operands(c);

  Step step{c.name(), {o.q.id, o.k.id, o.v.id, o.mask.id}, {o.y.id},
          [&table = c.table(), fixed = fixed_args(c, o), q = o.q.id, k = o.k.id, v = o.v.id, mask = o.mask.id, y = o.y.id,
           width = o.width](const Sizes& sizes) {
    AttentionArgs args = fixed;
    args.length = sizes.dims[q][1];
    const int64_t pairs = sizes.dims[q][0] * args.heads;
    args.parts = parts_for(pairs, args.length, sizes.threads);
    Work work = make_work(pairs * args.parts, 1, table.attention, args, [=](AttentionArgs& a, const Buffers& b, int thread) {
      a.q = b.get<const float>(q);
      a.k = k == kAbsent ? a.q + width : b.get<const float>(k);
      a.v = v == kAbsent ? a.q + 2 * width : b.get<const float>(v);
      a.mask = b.get<const int64_t>(mask);
      a.y = b.get<void>(y);
      a.scratch = b.scratch_of<float>(thread);
    });
    work.scratch_bytes = padded_bytes(attention_scratch(args.length, args.size) * static_cast<int64_t>(sizeof(float)));
    return work;
  }};
  step.mask = o.mask.id;
  return step;
}

}  // namespace openwork
