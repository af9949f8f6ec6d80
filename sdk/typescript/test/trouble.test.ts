/** Trouble: servers that die, users who may not, and records that are too large. */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { connect, flow, InvalidConnection, ResultTimeout, Worker, workflow, type RunFailed } from "../src/index.js";
import { putLarge } from "../src/values.js";
import { QUIET, running, server, serverProcess } from "./fleet.js";

const double = workflow("double", async (n: number) => {
  await sleep(1);
  return n * 2;
});
const fan = flow<number>("fan")
  .step("scatter", async (n, ctx) => (await ctx.spawnWorkflows(double, Array.from({ length: n }, (_, at) => at))).length)
  .step("gather", async (_, ctx) => {
    let sum = 0;
    for await (const child of ctx.children("scatter", double)) sum += child.output;
    return sum;
  }, { after: "scatter" });

test("a server is killed and comes back in the middle of a fan-out", async (t) => {
  const { process, firstLine: url } = await serverProcess(t);
  await running(url, [double, fan], async (client) => {
    const run = await client.trigger(fan, 5000);
    while ((await run.describe()).children.succeeded < 300) await sleep(5);
    process.stdin!.write("restart\n");
    await once(process.stdout!, "data");
    assert.equal(await run.result({ timeoutMs: 60_000 }), 5000 * 4999);
    const { children } = await run.describe();
    assert.deepEqual([children.spawned, children.succeeded], [5000, 5000]);
  });
});

test("more messages in one turn of the event loop than batches may be under way", async (t) => {
  await using client = await connect({ servers: await server(t), logger: QUIET });
  const { broker } = client.rules;
  const join = `once.${"a".repeat(32)}.${"b".repeat(32)}.run`;
  const receipts = await Promise.all(Array.from({ length: 12_000 }, (_, n) => broker.publish(`${join}.n${n}`, String(n))));
  assert.ok(receipts.every((one) => !one.taken));
  assert.equal(await broker.total(`${join}.*`), 12_000);
});

test("who connects is told to the server as in Python", async (t) => {
  const config = "authorization { users: [ { user: app, password: \"s p:@/\" } ] }";
  const url = await server(t, `config=${config}`);
  const logger = QUIET;
  await assert.rejects(connect({ servers: url, logger, maxReconnectAttempts: 1 }), /Authorization/);
  await assert.rejects(connect({ servers: url, user: "app", pass: "wrong", logger, maxReconnectAttempts: 1 }), /Authorization/);
  await (await connect({ servers: url, user: "app", pass: "s p:@/", logger })).close();
  await (await connect({ servers: url.replace("nats://", `nats://app:${encodeURIComponent("s p:@/")}@`), logger })).close();
  const token = await server(t, "config=authorization { token: sesame }");
  await (await connect({ servers: token.replace("nats://", "nats://sesame@"), logger })).close();
});

test("what a user may not record is not lost, and ends no worker", async (t) => {
  const denied = "permissions: { publish: { deny: [\"jf.*.run.>\"] } }";
  const url = await server(t, `config=authorization { users: [ { user: app, password: a }, { user: less, password: l, ${denied} } ] }`);
  let bodies = 0;
  const counted = workflow("counted", () => ++bodies, { attempts: 2, initialMs: 10 });
  await using less = await connect({ servers: url, user: "less", pass: "l", logger: QUIET });
  await using worker = new Worker(less, [counted], { graceMs: 500, ackWaitMs: 2000 });
  await worker.start();
  const run = await less.trigger(counted, null);
  await assert.rejects(run.result({ timeoutMs: 6000 }), ResultTimeout);
  assert.ok(bodies >= 1 && bodies <= 2, `its body ran ${bodies} times`);
  await worker.stop();
  await using app = await connect({ servers: url, user: "app", pass: "a", logger: QUIET });
  await using other = new Worker(app, [counted]);
  await other.start();
  await app.run(run.id).result({ timeoutMs: 10_000 }).catch((error: unknown) => assert.equal((error as RunFailed).failures[0]?.type, "Poisoned"));
});

test("a user who may make no streams works where they are, and is told what is missing where they are not", async (t) => {
  const denied = 'permissions: { publish: { deny: ["$JS.API.STREAM.CREATE.>", "$JS.API.CONSUMER.CREATE.>"] } }';
  const blinded = 'permissions: { publish: { deny: ["$JS.API.STREAM.MSG.GET.>"] } }';
  const url = await server(t, `config=authorization { users: [ { user: app, password: a }, { user: less, password: l, ${denied} }, { user: blind, password: b, ${blinded} } ] }`);
  const less = { servers: url, user: "less", pass: "l", logger: QUIET };
  await assert.rejects(connect(less), { type: "PermissionDenied", message: /\$JS\.API\.STREAM\.CREATE\.JF_default_tasks/ });
  await using app = await connect({ servers: url, user: "app", pass: "a", logger: QUIET });
  await using client = await connect(less);
  await assert.rejects(new Worker(client, [double]).start(), { type: "PermissionDenied", message: /CONSUMER\.CREATE/ });
  const noReads = { ...less, user: "blind", pass: "b", namespace: "default" };
  await using blind = await connect(noReads);
  await assert.rejects(blind.run("0".repeat(32)).describe(), { type: "PermissionDenied", message: /MSG\.GET\.JF_default_records/ });
  await using first = new Worker(app, [double]);
  await first.start();
  await first.stop();
  await using worker = new Worker(client, [double]);
  await worker.start();
  assert.equal(await (await client.trigger(double, 4)).result({ timeoutMs: 10_000 }), 8);
});

test("a worker takes up the steps of older code, and leaves how many of them may run", async (t) => {
  const url = await server(t);
  await using client = await connect({ servers: url, logger: QUIET });
  const made = (last: string) => flow<number>("changing").step("first", (n) => n).step(last, (n) => n, { after: "first", maxRunning: 2 });
  for (const flow of [made("old"), made("new")]) {
    await using worker = new Worker(client, [flow]);
    await worker.start();
  }
  const pending = async (step: string) =>
    (await client.rules.broker.api<{ config: { max_ack_pending: number } }>(`CONSUMER.INFO.JF_default_tasks.changing=${step}`)).config.max_ack_pending;
  assert.deepEqual(await Promise.all(["first", "old", "new"].map(pending)), [-1, 2, 2]);
});

test("what a task rests on and cannot be read, or is not there, ends its run by name", async (t) => {
  const url = await server(t);
  await running(url, [double], async (client) => {
    const { broker } = client.rules;
    const ended = async (headers: Record<string, string>, body = "1") => {
      const id = randomBytes(16).toString("hex");
      await broker.store(`task.double.run.${id}.-.${id}.0`, body, headers);
      return client.run(id).result({ timeoutMs: 10_000 }).catch((error: unknown) => (error as RunFailed).failures[0]?.type);
    };
    const graph = double.declaration().graph;
    await broker.publish("workflows.double.broken", '{"workflow":"double","nodes":7}');
    await broker.publish("workflows.double.later", JSON.stringify({ ...graph, nodes: [{ name: "run" }], unknown: [1] }));
    const large = await putLarge(broker, "f".repeat(32), JSON.stringify("x".repeat(300_000)), "a value");
    assert.deepEqual(
      await Promise.all([
        ended({ "Jf-Version": "later" }), ended({ "Jf-Version": "" }), ended({ "Jf-Version": "nobody-has-it" }), ended({ "Jf-Version": "a.b" }),
        ended({ "Jf-Version": "broken" }), ended({ "Jf-Value": large! }, ""), ended({ "Jf-Value": "nonsense" }, ""), ended({}, "[1,"), ended({}, '{"a": 1e999}'),
      ]),
      [2, 2, "UnknownVersion", "UnknownVersion", "MalformedRecord", "LostValue", "LostValue", "InvalidInput", "InvalidInput"],
    );
    assert.equal(await (await client.trigger(double, 5)).result(), 10);
  }, { unknownStepGraceMs: 1000 });
});

test("a join record that is too large for a message is kept apart", async (t) => {
  const url = await server(t, "max_payload=65536");
  const late = flow<number>("late")
    .step("scatter", async (n, ctx) => {
      await ctx.spawnWorkflows(double, Array.from({ length: n }, (_, at) => at));
      if (ctx.attempt === 1) throw new Error("once more");
    }, { initialMs: 10 })
    .step("count", async (_, ctx) => {
      let count = 0;
      for await (const child of ctx.children("scatter", double)) count += child.status === "succeeded" ? 1 : 0;
      return count;
    }, { after: "scatter" });
  await running(url, [double, late], async (client) => {
    const run = await client.trigger(late, 4000);
    assert.equal(await run.result({ timeoutMs: 60_000 }), 4000);
    const stored = await client.rules.broker.last(`join.${run.id}.${run.id}.scatter.1`);
    assert.match(Buffer.from(stored!.body).toString(), /"whole":"[0-9a-f]{32}-16384\.\d+"/);
  });
});

test("a step that holds up the event loop is not begun a second time beside itself", async (t) => {
  const url = await server(t);
  let begun = 0;
  const busy = workflow("busy", (ms: number) => {
    begun++;
    const until = performance.now() + ms;
    while (performance.now() < until);
    return ms;
  }, { attempts: 1 });
  await running(url, [busy], async (client) => {
    const runs = await Promise.all([2500, 1, 2, 3].map((ms) => client.trigger(busy, ms)));
    for (const run of runs) await run.result({ timeoutMs: 20_000 });
    assert.equal(begun, 4);
  }, { slots: 1, ackWaitMs: 1000 });
});

test("what makes no sense is refused where it enters", async (t) => {
  const url = await server(t);
  await assert.rejects(connect({ servers: "nats://:not a port", logger: QUIET }), InvalidConnection);
  await assert.rejects(connect({ servers: url, namespace: "a.b", logger: QUIET }), InvalidConnection);
  assert.throws(() => workflow("a b", () => 1), { type: "InvalidDeclaration" });
  assert.throws(() => workflow("w", () => 1, { attempts: 0 }), { type: "InvalidDeclaration" });
  assert.throws(() => flow("w").step("a", () => 1, { after: "b" as never }), /comes after 'b', which is not declared before it/);
  await using client = await connect({ servers: url, namespace: "old", logger: QUIET });
  await client.rules.broker.api("STREAM.DELETE.JF_old_values");
  await client.rules.broker.api("STREAM.CREATE.JF_old_values", { name: "JF_old_values", subjects: ["jf.old.value.>"] });
  await assert.rejects(connect({ servers: url, namespace: "old", logger: QUIET }), /edition unknown/);
  assert.throws(() => new Worker(client, [double, double]), { type: "InvalidDeclaration" });
  assert.throws(() => new Worker(client, [double], { slots: 0 }), RangeError);
});
