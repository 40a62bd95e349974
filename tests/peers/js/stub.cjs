// The library loads its encryption, a program for this machine, even where it is not used.
const Module = require("node:module");
const load = Module._load;
Module._load = function (name, ...rest) {
  if (name === "@matrix-org/matrix-sdk-crypto-nodejs") return new Proxy({}, { get: () => class {} });
  return load.call(this, name, ...rest);
};
