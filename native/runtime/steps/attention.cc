// Attention as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

struct Operands {
  Operand q, k, v, mask, bias, past_k, past_v, y, present_k, present_v;
};

// What the shapes of a step say: of every query and key, and whether its keys come from q, from k, or from the past alone.
struct Layout {
  int64_t heads, groups, size;
  bool packed = false;
  bool fresh = true;  // there are keys beside those of the past

  Layout(const StepContext& c, const Operands& o) : heads(c.integer("heads")), groups(c.has("kv_heads") ? c.integer("kv_heads") : heads) {
    const int64_t width = o.y.width(), q_width = o.q.width();
    c.expect(heads > 0 && width % heads == 0,
             "expected heads to divide the width " + std::to_string(width) + ", found " + std::to_string(heads) + ".");
    c.expect(groups > 0 && heads % groups == 0,
             "expected kv_heads to divide heads, " + std::to_string(heads) + ", found " + std::to_string(groups) + ".");
    size = width / heads;
    fresh = o.k || !o.past_k || q_width != width;
    packed = fresh && !o.k;
  }
  int64_t q_width() const { return (heads + (packed ? 2 * groups : 0)) * size; }
};

Operands read_operands(const StepContext& c) {
  Operands o{c.input("q", {DType::f32}).ranked(3, "[B, L, H] or [B, L, 3 H]"),
             c.optional_input("k", {DType::f32}),
             c.optional_input("v", {DType::f32}),
             c.optional_input("mask", {DType::i64}),
             c.optional_input("bias", {DType::f32}),
             c.optional_input("past_k", {DType::f32}),
             c.optional_input("past_v", {DType::f32}),
             c.output("y", {DType::f32, DType::u8}),
             c.optional_output("present_k", {DType::f32}),
             c.optional_output("present_v", {DType::f32})};
  c.expect(bool{o.k} == bool{o.v}, "expected k and v together or neither.");
  c.expect(bool{o.past_k} == bool{o.past_v}, "expected past_k and past_v together or neither.");
  return o;
}

// Refuses shapes that no sizes of the free dimensions bring together.
void check_shapes(const StepContext& c, const Operands& o, const Layout& layout) {
  const auto& q = o.q.dims();
  const int64_t batch = q[0], length = q[1];
  c.expect(q[2] == layout.q_width(), "expected " + std::string(layout.packed ? "q (holding q, k and v)" : "q") + " of shape " +
                                         shape_text({batch, length, layout.q_width()}) + ", found " + shape_text(q) + ".");
  o.y.shaped({batch, length, layout.heads * layout.size});
  if (o.k) {
    o.k.ranked(3, "[B, S, K]").shaped({batch, o.k.dims()[1], layout.groups * layout.size});
    o.v.shaped(o.k.dims());
  }
  if (o.past_k) {
    o.past_k.ranked(4, "[B, G, P, D]").shaped({batch, layout.groups, o.past_k.dims()[2], layout.size});
    o.past_v.shaped(o.past_k.dims());
  }
  if (o.mask) o.mask.ranked(2, "[B, T]").shaped({batch, o.mask.dims()[1]});
  if (o.bias) o.bias.ranked(4, "[B, heads, L, T], each but T or 1");
  for (const Operand* present : {&o.present_k, &o.present_v})
    if (*present) present->ranked(4, "[B, G, T, D]").shaped({batch, layout.groups, present->dims()[2], layout.size});
}

RoundTrip round_trip(const StepContext& c, const std::string& name) {
  if (!c.has(name + "_scale")) return {};
  const Quantization rounding = c.quantization(name);
  return {rounding.quantizer(), rounding.scale};
}

AttentionArgs fixed_args(const StepContext& c, const Operands& o, const Layout& layout) {
  AttentionArgs fixed{};
  fixed.heads = layout.heads;
  fixed.groups = layout.groups;
  fixed.size = layout.size;
  fixed.q_stride = layout.q_width();
  fixed.stride = layout.packed ? fixed.q_stride : layout.groups * layout.size;
  fixed.scale = c.number("scale").finite();
  fixed.causal = c.has("causal") && c.integer("causal").within(0, 1) == 1;
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

// A step's values by number, kAbsent where there is none.
struct Ids {
  int q, k, v, mask, bias, past_k, past_v, y, present_k, present_v;
  bool fresh, packed;

  Ids(const Operands& o, const Layout& layout)
      : q(o.q.id), k(o.k.id), v(o.v.id), mask(o.mask.id), bias(o.bias.id), past_k(o.past_k.id), past_v(o.past_v.id), y(o.y.id),
        present_k(o.present_k.id), present_v(o.present_v.id), fresh(layout.fresh), packed(layout.packed) {}
};

// The sizes of one run, which must agree where the program could not say so.
void take_sizes(const Place& place, const Ids& ids, const Sizes& sizes, AttentionArgs& args) {
  const auto& q = sizes.dims[ids.q];
  args.length = q[1];
  args.fresh = !ids.fresh ? 0 : ids.packed ? q[1] : sizes.dims[ids.k][1];
  args.past = ids.past_k == kAbsent ? 0 : sizes.dims[ids.past_k][2];
  const std::string keys = std::to_string(args.past) + " keys of the past and " + std::to_string(args.fresh) + " new ones";
  const auto expect_keys = [&](int value, size_t axis, const char* slot) {
    if (value == kAbsent) return;
    place.expect(sizes.dims[value][axis] == args.keys(), "expected " + std::string(slot) + " for " + keys + ", found the shape " +
                                                             shape_text(sizes.dims[value]) + ".");
  };
  expect_keys(ids.mask, 1, "mask");
  expect_keys(ids.bias, 3, "bias");
  expect_keys(ids.present_k, 2, "present_k");
  expect_keys(ids.present_v, 2, "present_v");
}

// The strides of a bias that is broadcast.
AttentionBias bias_of(const Place& place, const std::vector<int64_t>& shape, const std::vector<int64_t>& q, const AttentionArgs& a) {
  const int64_t rows = shape[2] * shape[3];
  place.expect(q[0] % shape[0] == 0 && (shape[1] == 1 || shape[1] == a.heads) && (shape[2] == 1 || shape[2] == a.length),
               "expected a bias that is broadcast to " + shape_text({q[0], a.heads, a.length, a.keys()}) + ", found " +
                   shape_text(shape) + ".");
  return {nullptr, shape[0], shape[1] * rows, shape[1] == 1 ? 0 : rows, shape[2] == 1 ? 0 : shape[3]};
}

void fill(const Ids& ids, AttentionArgs& a, const Buffers& b, int thread) {
  a.q = b.get<const float>(ids.q);
  a.k = ids.packed ? a.q + a.heads * a.size : b.get<const float>(ids.k);
  a.v = ids.packed ? a.q + (a.heads + a.groups) * a.size : b.get<const float>(ids.v);
  a.mask = b.get<const int64_t>(ids.mask);
  a.bias.data = b.get<const float>(ids.bias);
  a.past_k = b.get<const float>(ids.past_k);
  a.past_v = b.get<const float>(ids.past_v);
  a.y = b.get<void>(ids.y);
  a.present_k = b.get<float>(ids.present_k);
  a.present_v = b.get<float>(ids.present_v);
  a.scratch = b.scratch_of<float>(thread);
}

// How many keys there are is a sum where there is a past, so the step gives it.
Shapes made_shapes(const Ids& ids, const AttentionArgs& fixed, const Shapes& reads) {
  const auto& q = reads.front();
  size_t read = 1;
  const int64_t fresh = !ids.fresh ? 0 : ids.packed ? q[1] : reads[read][1];
  for (const int id : {ids.k, ids.v, ids.mask, ids.bias}) read += id != kAbsent;
  const int64_t keys = fresh + (ids.past_k == kAbsent ? 0 : reads[read][2]);
  Shapes made{{q[0], q[1], fixed.heads * fixed.size}};
  for (const int id : {ids.present_k, ids.present_v})
    if (id != kAbsent) made.push_back({q[0], fixed.groups, keys, fixed.size});
  return made;
}

}  // namespace

Step make_attention(const StepContext& c) {
  const Operands o = read_operands(c);
  const Layout layout(c, o);
  check_shapes(c, o, layout);
  const AttentionArgs fixed = fixed_args(c, o, layout);
  const Ids ids(o, layout);

  Step step{c.name(), {ids.q, ids.k, ids.v, ids.mask, ids.bias, ids.past_k, ids.past_v}, {ids.y, ids.present_k, ids.present_v},
            [&table = c.table(), place = c.place(), fixed, ids](const Sizes& sizes) {
    AttentionArgs args = fixed;
    take_sizes(place, ids, sizes, args);
    if (ids.bias != kAbsent) args.bias = bias_of(place, sizes.dims[ids.bias], sizes.dims[ids.q], args);
    const int64_t pairs = sizes.dims[ids.q][0] * args.heads;
    args.parts = parts_for(pairs, args.length, sizes.threads);
    Work work = make_work(pairs * args.parts, 1, table.attention, args,
                          [ids](AttentionArgs& a, const Buffers& b, int thread) { fill(ids, a, b, thread); });
    work.scratch_bytes =
        padded_bytes(attention_scratch(args.length, args.keys(), args.size) * static_cast<int64_t>(sizeof(float)));
    return work;
  }};
  if (ids.present_k != kAbsent || ids.present_v != kAbsent)
    step.shapes = [fixed, ids](const Shapes& reads) { return made_shapes(ids, fixed, reads); };
  for (Read& read : step.reads) read.may_be_zero = read.value == ids.past_k || read.value == ids.past_v ? 2 : kNoAxis;
  // Where keys are cut alone, those that a causal query sees would be others.
  const bool together = o.mask && o.q.dims()[1] == o.mask.dims()[1];
  if (o.mask && !o.past_k && (!fixed.causal || together)) step.mask = o.mask.id;
  return step;
}

}  // namespace openwork
