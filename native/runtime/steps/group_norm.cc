// Group norm of images as a step of a program: to floats, to BF16 or to u8.
#include <numeric>

#include "runtime/steps/image.h"

namespace openwork {

namespace {

struct Norm {
  GroupNormArgs fixed;
  std::shared_ptr<const std::pair<Floats, Floats>> numbers;  // gamma and beta
  int x = kAbsent, shift = kAbsent, y = kAbsent;
};

// Whole groups that make up whole strips where every thread gets some, else as few as keep all threads busy.
int64_t groups_of_part(int64_t groups, int64_t group, int64_t images, int threads) {
  const int64_t whole = std::min(groups, kStripLanes / std::gcd(int64_t{kStripLanes}, group));
  const int64_t wanted = (threads + images - 1) / images;
  return std::max<int64_t>(1, std::min(whole, groups / std::min(groups, wanted)));
}

Work bind_norm(const Norm& norm, const KernelTable& table, const Sizes& sizes) {
  const auto& x = sizes.dims[static_cast<size_t>(norm.x)];
  GroupNormArgs a = norm.fixed;
  const int64_t groups = a.channels / a.group;
  a.pixels = x[1] * x[2];
  a.x_stride = sizes.stride(norm.x), a.y_stride = sizes.stride(norm.y);
  a.part_channels = a.group * groups_of_part(groups, a.group, x[0], sizes.threads);
  a.parts = (a.channels + a.part_channels - 1) / a.part_channels;
  const int64_t units = x[0] * a.parts;
  Work work = make_work(units, even_chunk(units, sizes.threads), table.group_norm, a,
                        [norm](GroupNormArgs& args, const Buffers& b, int thread) {
                          args.x = b.get<const float>(norm.x);
                          args.shift = b.get<const float>(norm.shift);
                          args.y = b.get<void>(norm.y);
                          args.scratch = b.scratch_of<float>(thread);
                        });
  work.scratch_bytes = 2 * strips_of(a.part_channels) * kStripLanes * static_cast<int64_t>(sizeof(float));
  return work;
}

Stored stored_as(DType dtype) { return dtype == DType::u8 ? Stored::u8 : dtype == DType::bf16 ? Stored::bf16 : Stored::f32; }

}  // namespace

Step make_group_norm(const StepContext& c) {
  const Operand x = read_image(c, "x", {DType::f32});
  const auto& d = x.dims();
  const Operand shift = c.optional_input("shift", {DType::f32}).shaped({d[0], 1, 1, d[3]});
  const Operand y = c.output("y", {DType::f32, DType::bf16, DType::u8}).shaped(d);
  const int64_t groups = c.integer("groups").within(1, d[3]);
  c.expect(d[3] % groups == 0, "expected groups to be a divisor of the " + std::to_string(d[3]) + " channels, found " +
                                   std::to_string(groups) + ".");
  Norm norm{{}, std::make_shared<const std::pair<Floats, Floats>>(c.floats("gamma", {d[3]}), c.floats("beta", {d[3]})),
            x.id, shift.id, y.id};
  GroupNormArgs& fixed = norm.fixed;
  fixed.gamma = norm.numbers->first.data(), fixed.beta = norm.numbers->second.data();
  fixed.channels = d[3], fixed.group = d[3] / groups;
  fixed.epsilon = c.number("epsilon").positive();
  fixed.activation = c.activation(c.text("activation", "none"));
  fixed.stored = stored_as(y.dtype());
  if (fixed.stored == Stored::u8) fixed.quantizer = c.quantization("y").quantizer();

  Step step{c.name(), {{x.id, false, false, true}, shift.id}, {y.id},
            [&table = c.table(), norm](const Sizes& sizes) { return bind_norm(norm, table, sizes); }};
  step.strided = true;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
