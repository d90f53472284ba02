#include "kernels/outlook.h"

#include <algorithm>

namespace openwork {

namespace {

// Dot products of a strip that each row takes where no zero is left out: those of the dense form, or where that does not hold
// the weight, as many as it would take if it did.
double dense_work(WeightShape shape, Type type, const void* weight, const KernelTable& table) {
  shape.merged = shape.copied = false;
  if (refusal(shape, type, Form::dense, table).empty())
    return PackedWeights::pack(shape, type, weight, Form::dense, table)->work();
  const int64_t per_dot = 4 / element_bytes(type), strips = (shape.n + kStripLanes - 1) / kStripLanes;
  return static_cast<double>(strips * shape.taps() * ((shape.channels + per_dot - 1) / per_dot));
}

}  // namespace

std::vector<Outlook> outlook(const std::vector<WeightShape>& shapes, Type type, const void* weight, const std::vector<Form>& forms,
                             const KernelTable& table) {
  if (forms.empty()) return {};
  const auto sample = [&](WeightShape shape) {
    if (shape.groups == 1) shape.n = std::min(shape.n, kSpanChannels);
    return shape;
  };
  const double dense = dense_work(sample(shapes[0]), type, weight, table);
  std::vector<Outlook> found;
  for (size_t i = 0; i < forms.size(); ++i) {
    const WeightShape shape = sample(shapes[i]);
    std::string reason = refusal(shape, type, forms[i], table);
    const double work = reason.empty() ? PackedWeights::pack(shape, type, weight, forms[i], table)->work() / dense : 0.0;
    found.push_back({forms[i], work, std::move(reason)});
  }
  return found;
}

}  // namespace openwork
