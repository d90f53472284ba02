#include "simd/avx512vnni_novbmi.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kAvx512VnniNoVbmiVocabulary = vocabulary_of<Avx512VnniNoVbmi>();

}  // namespace openwork::test
