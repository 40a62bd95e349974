// A bot of matrix-bot-sdk: comes where it is invited, answers "!ping", and says what it did line by line.
require("./stub.cjs");
const { AutojoinRoomsMixin, LogLevel, LogService, MatrixAuth, MemoryStorageProvider, MatrixClient } = require("matrix-bot-sdk");

LogService.setLevel(LogLevel.ERROR);
const [url, user, password] = process.argv.slice(2);

(async () => {
  const logged = await new MatrixAuth(url).passwordLogin(user, password, "bot");
  const client = new MatrixClient(url, logged.accessToken, new MemoryStorageProvider());
  AutojoinRoomsMixin.setupOnClient(client);
  client.on("room.message", async (room, event) => {
    if (event.sender === user || event.content?.body !== "!ping") return;
    const mxc = await client.uploadContent(Buffer.from("a map"), "text/plain", "map.txt");
    const back = await client.downloadContent(mxc);
    await client.replyText(room, event, `pong ${back.data.toString()}`);
    await client.unstableApis.addReactionToEvent(room, event.event_id, "+1");
    await client.setTyping(room, false);
    await client.sendReadReceipt(room, event.event_id);
    console.log(JSON.stringify({ answered: event.event_id, rooms: await client.getJoinedRooms() }));
  });
  await client.start();
  console.log(JSON.stringify({ ready: await client.getUserId() }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
