#include "kernels/outlook.h"

#include <algorithm>

namespace openwork {

std::vector<Outlook> outlook(const WeightShape& shape, Type type, const void* weight, const std::vector<Form>& forms,
                             const KernelTable& table) {
  WeightShape sample = shape;
  if (shape.groups == 1) sample.n = std::min(shape.n, kSpanChannels);
  const double dense = PackedWeights::pack(sample, type, weight, Form::dense, table)->work();
  std::vector<Outlook> found;
  for (const Form form : forms) {
    std::string reason = refusal(sample, type, form, table);
    const double work = reason.empty() ? PackedWeights::pack(sample, type, weight, form, table)->work() / dense : 0.0;
    found.push_back({form, work, std::move(reason)});
  }
  return found;
}

}  // namespace openwork
