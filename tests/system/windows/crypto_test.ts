/** Cryptography of bcrypt.dll under Wine, which lacks ChaCha20-Poly1305, and of the other back ends on Windows. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("openCryptography() under Wine uses bcrypt.dll for AES-GCM", async () => {
  await using wine = await openWine();
  await wine.tests("tests/driver/crypto/crypto_test.ts", 38);
});
