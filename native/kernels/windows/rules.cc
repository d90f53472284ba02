// Which weights the forms over windows hold, and what their products are expected to take.
#include "kernels/body.h"
#include "kernels/windows/pack.h"

namespace openwork::windows {
namespace {

// A mask costs 0.4 of a strip's dot product on Zen 4 with one own mask a strip (2:4 in window8 takes 0.7 of dense).
constexpr double kMaskWork = 0.4;

std::string refuse(const WeightShape& s, Type type, Form form, const KernelTable& table) {
  if (form_info(form).shuffled()) return "";
  const std::string name = form_info(form).name;
  const int64_t channels = table.group_channels(form);
  if (type == Type::bf16 && dense_elements(s) == 1)
    return "The form " + name + " reads BF16 by twos, and a run of these activations has one; use f32.";
  if (s.groups == 1) return "";
  if (s.run_taps() > 1) return "The form " + name + " does not run grouped convolutions with rows of taps together.";
  if (s.n / s.groups % channels == 0) return "";
  return "The form " + name + " makes " + std::to_string(channels) + " output channels at once on " + table.isa +
         ", which do not fit the " + std::to_string(s.n / s.groups) + " of each group; use a shuffled form.";
}

void pack(Packer& to) { to.info().shuffled() ? pack_shuffled(to) : pack_dense(to); }

double work(const PackedWeights& w) {
  const FormInfo info = form_info(w.form());
  const auto strips = static_cast<double>(w.table().group_strips[static_cast<int>(w.form())]);
  const double masks = info.shuffled() ? strips / info.share : 0.0;
  return static_cast<double>(w.steps()) * (strips + kMaskWork * masks);
}

int64_t scratch_bytes(const PackedWeights&) { return 0; }

}  // namespace

extern const BodyRules kRules = {refuse, pack, work, scratch_bytes};

}  // namespace openwork::windows
