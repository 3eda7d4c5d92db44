/**
 * ONNX Runtime, from 1.29 on, writes a device id into the user's cache folder and may send usage events, unless this
 * variable is set before its library is loaded. So importing any part of this package sets it.
 */
if (typeof process === "object" && process.env) process.env.ORT_DISABLE_TELEMETRY = "1";

export {};
