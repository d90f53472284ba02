#include "simd/avx512vnni_novbmi.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kAvx512VnniNoVbmiOperators = make_operators<Avx512VnniNoVbmi>();

}  // namespace openwork
